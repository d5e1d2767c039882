output "provider_table" {
  description = "What goes into vmrunner's configuration, below [providers.NAME]."
  value       = <<-EOT
    kind = "azure"
    subscription = "${data.azurerm_subscription.this.subscription_id}"
    resource_group = "${azurerm_resource_group.builds.name}"
    location = "${var.location}"
    subnet = "${azurerm_virtual_network.builds.name}/${azurerm_subnet.builds.name}"
    security_group = "${azurerm_network_security_group.builds.name}"
    guard = "${azurerm_resource_group.guard.name}"
  EOT
}

output "function" {
  description = "The guard's function app."
  value       = azurerm_function_app_flex_consumption.guard.id
}

output "principal" {
  description = "Who the function is."
  value       = azurerm_function_app_flex_consumption.guard.identity[0].principal_id
}
