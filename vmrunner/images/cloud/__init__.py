"""Images in clouds, made by Packer."""
