"""Make a host ready to run guests: packages, guest images, and a doctor that tells what is missing."""
