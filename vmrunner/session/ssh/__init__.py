"""SSH to one VM. The only package that imports Fabric and paramiko."""
