"""What runs inside the box. These files are executed there as scripts and import only the standard library."""
