"""Views of builds, VMs and images."""
