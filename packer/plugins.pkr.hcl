# What this needs of Packer. A plugin is one exact version: its options were read in that version's
# source, and tests hold every option used here against it.
packer {
  required_version = ">= 1.11.0, < 2.0.0"

  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = "= 1.8.2"
    }
    azure = {
      source  = "github.com/hashicorp/azure"
      version = "= 2.6.3"
    }
    googlecompute = {
      source  = "github.com/hashicorp/googlecompute"
      version = "= 1.2.7"
    }
    qemu = {
      source  = "github.com/hashicorp/qemu"
      version = "= 1.1.4"
    }
  }
}
