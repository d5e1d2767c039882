# The security group of builds with `network: none`: it lets SSH in from where vmrunner runs, and
# nothing out. Its id goes into the provider's table as `security_group_none`.

terraform {
  required_version = ">= 1.5"

  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 4.0"
    }
  }
}

variable "resource_group" {
  description = "The group of the builds."
  type        = string
}

variable "location" {
  description = "Its region."
  type        = string
}

variable "ssh_from" {
  description = "Where vmrunner runs: ranges from which SSH is let in."
  type        = list(string)
}

resource "azurerm_network_security_group" "none" {
  name                = "vmrunner-network-none"
  resource_group_name = var.resource_group
  location            = var.location

  security_rule {
    name                       = "ssh"
    priority                   = 100
    direction                  = "Inbound"
    access                     = "Allow"
    protocol                   = "Tcp"
    source_port_range          = "*"
    source_address_prefixes    = var.ssh_from
    destination_port_range     = "22"
    destination_address_prefix = "*"
  }

  security_rule {
    name                       = "nobody-else"
    priority                   = 200
    direction                  = "Inbound"
    access                     = "Deny"
    protocol                   = "*"
    source_port_range          = "*"
    source_address_prefix      = "*"
    destination_port_range     = "*"
    destination_address_prefix = "*"
  }

  # Azure's resolver has an address to which no rule about addresses applies.
  security_rule {
    name                       = "no-names"
    priority                   = 100
    direction                  = "Outbound"
    access                     = "Deny"
    protocol                   = "*"
    source_port_range          = "*"
    source_address_prefix      = "*"
    destination_port_range     = "*"
    destination_address_prefix = "AzurePlatformDNS"
  }

  security_rule {
    name                       = "nothing-out"
    priority                   = 110
    direction                  = "Outbound"
    access                     = "Deny"
    protocol                   = "*"
    source_port_range          = "*"
    source_address_prefix      = "*"
    destination_port_range     = "*"
    destination_address_prefix = "*"
  }
}

output "security_group_none" {
  value = azurerm_network_security_group.none.id
}
