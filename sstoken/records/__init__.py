"""What a job reads and leaves behind: documents, whole files, provenance, and the devices that it ran on."""
