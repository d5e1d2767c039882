"""Local images: root file systems, disk, qcow2."""
