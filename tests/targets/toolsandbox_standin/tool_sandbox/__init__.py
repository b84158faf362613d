"""Part of a stand-in of ToolSandbox: see README.md."""
