# vmrunner in an Azure subscription: a resource group for one installation's VMs, with their network;
# the roles of who makes and of who ends them; and the guard, a function that deletes what of
# vmrunner's is past its deadline, every five minutes, with an alert when it fails or falls silent.

terraform {
  required_version = ">= 1.5"

  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 4.40"
    }
  }
}

data "azurerm_subscription" "this" {}

locals {
  # Names of functions and of roles are everybody's: an installation's first eight tell it apart.
  name   = "vmrunner-guard-${substr(var.installation, 0, 8)}"
  whose  = var.all_installations ? "*" : var.installation
  source = "${path.module}/../guard"
  files  = sort(fileset(local.source, "*.{json,py}"))
  # What is published anew is what has another.
  version = substr(sha256(join("", [for file in local.files : filesha256("${local.source}/${file}")])), 0, 12)

  roles = {
    for name in ["vmrunner", "subscription", "guard", "sign"] : name => jsondecode(templatefile(
      "${path.module}/../roles/${name}.json",
      { name = "vmrunner ${substr(var.installation, 0, 8)}", subscription = data.azurerm_subscription.this.subscription_id },
    ))
  }

  tags = merge(var.tags, {
    "vmrunner:installation" = var.installation
    "vmrunner:role"         = "guard"
  })
}

# --- where VMs are: a group of their own, and a network that lets nobody in but vmrunner ---

resource "azurerm_resource_group" "builds" {
  name     = var.resource_group
  location = var.location
  tags     = local.tags
}

resource "azurerm_virtual_network" "builds" {
  name                = "vmrunner"
  resource_group_name = azurerm_resource_group.builds.name
  location            = var.location
  address_space       = [var.address_space]
  tags                = local.tags
}

resource "azurerm_subnet" "builds" {
  name                 = "builds"
  resource_group_name  = azurerm_resource_group.builds.name
  virtual_network_name = azurerm_virtual_network.builds.name
  address_prefixes     = [var.address_space]
  # A VM has its own public address, or a way out that you made.
  default_outbound_access_enabled = false
}

resource "azurerm_network_security_group" "builds" {
  name                = "vmrunner"
  resource_group_name = azurerm_resource_group.builds.name
  location            = var.location
  tags                = local.tags

  security_rule {
    name                       = "ssh-of-vmrunner"
    priority                   = 100
    direction                  = "Inbound"
    access                     = "Allow"
    protocol                   = "Tcp"
    source_port_range          = "*"
    source_address_prefixes    = var.ssh_sources
    destination_port_range     = "22"
    destination_address_prefix = "*"
  }

  # Azure's own rules let all of a virtual network in: without this, each VM every other.
  security_rule {
    name                       = "nobody-else"
    priority                   = 4096
    direction                  = "Inbound"
    access                     = "Deny"
    protocol                   = "*"
    source_port_range          = "*"
    source_address_prefix      = "*"
    destination_port_range     = "*"
    destination_address_prefix = "*"
  }
}

resource "azurerm_subnet_network_security_group_association" "builds" {
  subnet_id                 = azurerm_subnet.builds.id
  network_security_group_id = azurerm_network_security_group.builds.id
}

# --- what may be made there ---

resource "azurerm_policy_definition" "untagged" {
  count = var.deny_untagged ? 1 : 0

  name         = "${local.name}-untagged"
  display_name = "vmrunner: no VM without an installation and a deadline"
  policy_type  = "Custom"
  mode         = "Indexed"
  policy_rule  = file("${path.module}/../policies/deny-untagged.json")
}

resource "azurerm_resource_group_policy_assignment" "untagged" {
  count = var.deny_untagged ? 1 : 0

  name                 = "vmrunner-untagged"
  resource_group_id    = azurerm_resource_group.builds.id
  policy_definition_id = azurerm_policy_definition.untagged[0].id
}

# --- who vmrunner is, and what it may do: in its group, and of the subscription ---

resource "azurerm_role_definition" "vmrunner" {
  for_each = toset(["vmrunner", "subscription"])

  name        = local.roles[each.key].Name
  description = local.roles[each.key].Description
  scope       = data.azurerm_subscription.this.id

  permissions {
    actions = local.roles[each.key].Actions
  }
}

resource "azurerm_role_assignment" "vmrunner" {
  # By names, which are known before whoever carries them is made.
  for_each = {
    for pair in setproduct(keys(var.principals), ["vmrunner", "subscription"]) : join("/", pair) => {
      principal = var.principals[pair[0]]
      role      = pair[1]
      scope     = pair[1] == "vmrunner" ? azurerm_resource_group.builds.id : data.azurerm_subscription.this.id
    }
  }

  scope              = each.value.scope
  role_definition_id = azurerm_role_definition.vmrunner[each.value.role].role_definition_resource_id
  principal_id       = each.value.principal
}

# --- who the guard is, and what it may do ---

resource "azurerm_role_definition" "guard" {
  name        = local.roles["guard"].Name
  description = local.roles["guard"].Description
  scope       = data.azurerm_subscription.this.id

  permissions {
    actions = local.roles["guard"].Actions
  }
}

resource "azurerm_role_assignment" "guard" {
  scope              = azurerm_resource_group.builds.id
  role_definition_id = azurerm_role_definition.guard.role_definition_resource_id
  principal_id       = azurerm_function_app_flex_consumption.guard.identity[0].principal_id
  principal_type     = "ServicePrincipal"
}

# What it may say of itself: the time of its last pass, as a tag of its own group.
resource "azurerm_role_definition" "sign" {
  name        = local.roles["sign"].Name
  description = local.roles["sign"].Description
  scope       = data.azurerm_subscription.this.id

  permissions {
    actions = local.roles["sign"].Actions
  }
}

resource "azurerm_role_assignment" "sign" {
  scope              = azurerm_resource_group.guard.id
  role_definition_id = azurerm_role_definition.sign.role_definition_resource_id
  principal_id       = azurerm_function_app_flex_consumption.guard.identity[0].principal_id
  principal_type     = "ServicePrincipal"
}

# --- the function, in a group of its own: who may make VMs cannot touch what ends them ---

resource "azurerm_resource_group" "guard" {
  name     = "${var.resource_group}-guard"
  location = var.location
  tags     = local.tags

  # The function itself leaves the time of its last pass there.
  lifecycle {
    ignore_changes = [tags["vmrunner:last-pass"]]
  }
}

resource "azurerm_storage_account" "guard" {
  name                            = "vmrunner${substr(replace(var.installation, "-", ""), 0, 16)}"
  resource_group_name             = azurerm_resource_group.guard.name
  location                        = var.location
  account_tier                    = "Standard"
  account_replication_type        = "LRS"
  min_tls_version                 = "TLS1_2"
  allow_nested_items_to_be_public = false
  tags                            = local.tags
}

resource "azurerm_storage_container" "guard" {
  name                  = "guard"
  storage_account_id    = azurerm_storage_account.guard.id
  container_access_type = "private"
}

resource "azurerm_service_plan" "guard" {
  name                = local.name
  resource_group_name = azurerm_resource_group.guard.name
  location            = var.location
  os_type             = "Linux"
  sku_name            = "FC1"
  tags                = local.tags
}

resource "azurerm_function_app_flex_consumption" "guard" {
  name                = local.name
  resource_group_name = azurerm_resource_group.guard.name
  location            = var.location
  service_plan_id     = azurerm_service_plan.guard.id
  https_only          = true
  tags                = merge(local.tags, { "vmrunner:roles" = "build, pool, image" })

  runtime_name           = "python"
  runtime_version        = "3.12"
  maximum_instance_count = 40 # the least; the timer has one at a time
  instance_memory_in_mb  = 2048

  storage_container_type      = "blobContainer"
  storage_container_endpoint  = "${azurerm_storage_account.guard.primary_blob_endpoint}${azurerm_storage_container.guard.name}"
  storage_authentication_type = "StorageAccountConnectionString"
  storage_access_key          = azurerm_storage_account.guard.primary_access_key

  identity {
    type = "SystemAssigned"
  }

  site_config {
    application_insights_connection_string = azurerm_application_insights.guard.connection_string
  }

  app_settings = {
    VMRUNNER_INSTALLATION   = local.whose
    VMRUNNER_SUBSCRIPTION   = data.azurerm_subscription.this.subscription_id
    VMRUNNER_RESOURCE_GROUP = azurerm_resource_group.builds.name
    VMRUNNER_GUARD_GROUP    = azurerm_resource_group.guard.name
    VMRUNNER_GRACE          = tostring(var.grace_seconds)
    VMRUNNER_MAX_TTL        = tostring(var.max_ttl_seconds)
    VMRUNNER_DRY_RUN        = tostring(var.dry_run)
  }
}

# Its code. An app of this plan takes it at an address that azurerm's zip_deploy_file does not know
# (hashicorp/terraform-provider-azurerm issue 29630): the app would be there, and empty.
resource "terraform_data" "code" {
  triggers_replace = [azurerm_function_app_flex_consumption.guard.id, local.version]

  provisioner "local-exec" {
    command = "python3 '${path.module}/../publish.py' '${data.azurerm_subscription.this.subscription_id}' '${azurerm_resource_group.guard.name}' '${local.name}'"
  }

  depends_on = [azurerm_role_assignment.guard, azurerm_role_assignment.sign]
}

# --- what it says, and what rings ---

resource "azurerm_log_analytics_workspace" "guard" {
  name                = local.name
  resource_group_name = azurerm_resource_group.guard.name
  location            = var.location
  sku                 = "PerGB2018"
  retention_in_days   = 30
  tags                = local.tags
}

resource "azurerm_application_insights" "guard" {
  name                = local.name
  resource_group_name = azurerm_resource_group.guard.name
  location            = var.location
  workspace_id        = azurerm_log_analytics_workspace.guard.id
  application_type    = "other"
  sampling_percentage = 100
  tags                = local.tags
}

check "alerts_are_heard" {
  assert {
    condition     = length(var.action_groups) > 0
    error_message = "action_groups: none, so nobody hears when the guard fails or falls silent."
  }
}

resource "azurerm_monitor_scheduled_query_rules_alert_v2" "failing" {
  name                    = "${local.name}-failing"
  resource_group_name     = azurerm_resource_group.guard.name
  location                = var.location
  description             = "The guard that deletes vmrunner's overdue VMs fails; its log says what."
  scopes                  = [azurerm_application_insights.guard.id]
  severity                = 1
  evaluation_frequency    = "PT5M"
  window_duration         = "PT15M"
  auto_mitigation_enabled = true
  tags                    = local.tags

  criteria {
    query                   = "requests | where success == false"
    time_aggregation_method = "Count"
    operator                = "GreaterThan"
    threshold               = 0
  }

  action {
    action_groups = var.action_groups
  }
}

resource "azurerm_monitor_scheduled_query_rules_alert_v2" "silent" {
  name                    = "${local.name}-silent"
  resource_group_name     = azurerm_resource_group.guard.name
  location                = var.location
  description             = "The guard that deletes vmrunner's overdue VMs was not heard of for half an hour."
  scopes                  = [azurerm_application_insights.guard.id]
  severity                = 1
  evaluation_frequency    = "PT5M"
  window_duration         = "PT30M"
  auto_mitigation_enabled = true
  tags                    = local.tags

  criteria {
    query                   = "requests | where success == true"
    time_aggregation_method = "Count"
    operator                = "LessThan"
    threshold               = 1
  }

  action {
    action_groups = var.action_groups
  }
}
