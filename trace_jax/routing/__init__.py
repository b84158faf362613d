"""Stage 4: task → adapter. Routers, their selection policies, and the table they choose from."""
