"""What a program will need and take on chips that nobody has rented yet, read off what the compiler makes of it."""
