# vmrunner's guard in a Google Cloud project: a function that deletes what of vmrunner's is past its
# deadline, invoked every five minutes; an alert when it fails or falls silent.

terraform {
  required_version = ">= 1.5"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 7.0"
    }
    archive = {
      source  = "hashicorp/archive"
      version = "~> 2.4"
    }
    time = {
      source  = "hashicorp/time"
      version = "~> 0.11"
    }
  }
}

locals {
  # The name of an account has 30 characters at most: an installation's first eight tell it apart.
  name   = "vmrunner-guard-${substr(var.installation, 0, 8)}"
  whose  = var.all_installations ? "*" : var.installation
  source = "${path.module}/../guard"
  role   = yamldecode(file("${path.module}/../guard-role.yaml"))

  # What a build of a function needs, as Google's documents list it for an account of one's own.
  building = toset(["roles/artifactregistry.writer", "roles/logging.logWriter", "roles/storage.objectViewer"])

  labels = merge(var.labels, {
    "vmrunner-installation" = var.installation
    "vmrunner-role"         = "guard"
  })
}

# --- who the function is, and what it may do ---

resource "google_service_account" "guard" {
  project      = var.project
  account_id   = local.name
  display_name = "vmrunner's guard of ${var.installation}"

  # The function itself leaves the time of its last pass there.
  lifecycle {
    ignore_changes = [description]
  }
}

# What it may say of itself, and of nobody else: the time of its last pass.
resource "google_project_iam_custom_role" "sign" {
  project     = var.project
  role_id     = "${replace(local.name, "-", "_")}_sign"
  title       = "vmrunner guard's sign of life"
  description = "Leaves the time of the guard's last pass in its own account's description."
  stage       = "GA"
  permissions = ["iam.serviceAccounts.update"]
}

resource "google_service_account_iam_member" "sign" {
  service_account_id = google_service_account.guard.name
  role               = google_project_iam_custom_role.sign.id
  member             = google_service_account.guard.member
}

resource "google_project_iam_custom_role" "guard" {
  project     = var.project
  role_id     = replace(local.name, "-", "_")
  title       = local.role.title
  description = local.role.description
  stage       = local.role.stage
  permissions = local.role.includedPermissions
}

resource "google_project_iam_member" "guard" {
  project = var.project
  role    = google_project_iam_custom_role.guard.id
  member  = google_service_account.guard.member
}

# --- who builds it: the default account of Compute Engine may have no role at all ---

resource "google_service_account" "build" {
  project      = var.project
  account_id   = "${local.name}-build"
  display_name = "builds ${local.name}"
}

resource "google_project_iam_member" "build" {
  for_each = local.building

  project = var.project
  role    = each.value
  member  = google_service_account.build.member
}

# A role that was given a moment ago is not everywhere known.
resource "time_sleep" "granted" {
  create_duration = "60s"
  triggers        = { account = google_service_account.build.unique_id }

  depends_on = [google_project_iam_member.build]
}

# --- the function ---

data "archive_file" "guard" {
  type        = "zip"
  source_dir  = local.source
  excludes    = ["__pycache__", "requirements.in"]
  output_path = "${path.root}/.terraform/vmrunner-guard-gcp.zip"
}

resource "google_storage_bucket" "source" {
  project                     = var.project
  name                        = "${var.project}-${local.name}"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true
  labels                      = local.labels
}

resource "google_storage_bucket_object" "source" {
  bucket = google_storage_bucket.source.name
  name   = "${data.archive_file.guard.output_sha256}.zip"
  source = data.archive_file.guard.output_path
}

resource "google_cloudfunctions2_function" "guard" {
  project     = var.project
  location    = var.region
  name        = local.name
  description = "Deletes what of vmrunner's is past its deadline."
  labels      = local.labels

  build_config {
    runtime         = "python313"
    entry_point     = "handler"
    service_account = google_service_account.build.id

    source {
      storage_source {
        bucket = google_storage_bucket.source.name
        object = google_storage_bucket_object.source.name
      }
    }
  }

  service_config {
    available_memory               = "256M"
    timeout_seconds                = 240
    max_instance_count             = 1
    ingress_settings               = "ALLOW_INTERNAL_ONLY"
    service_account_email          = google_service_account.guard.email
    all_traffic_on_latest_revision = true

    environment_variables = {
      VMRUNNER_INSTALLATION = local.whose
      VMRUNNER_PROJECT      = var.project
      VMRUNNER_ACCOUNT      = google_service_account.guard.email
      VMRUNNER_GRACE        = tostring(var.grace_seconds)
      VMRUNNER_MAX_TTL      = tostring(var.max_ttl_seconds)
    }
  }

  depends_on = [time_sleep.granted]
}

# --- what invokes it ---

resource "google_service_account" "schedule" {
  project      = var.project
  account_id   = "${local.name}-cron"
  display_name = "invokes ${local.name}"
}

resource "google_cloud_run_v2_service_iam_member" "schedule" {
  project  = var.project
  location = var.region
  name     = google_cloudfunctions2_function.guard.name
  role     = "roles/run.invoker"
  member   = google_service_account.schedule.member
}

resource "google_cloud_scheduler_job" "guard" {
  project          = var.project
  region           = var.region
  name             = local.name
  description      = "Invokes vmrunner's guard. Roles: build, pool, image."
  schedule         = "*/5 * * * *"
  time_zone        = "Etc/UTC"
  attempt_deadline = "300s"

  retry_config {
    retry_count = 1
  }

  http_target {
    uri         = google_cloudfunctions2_function.guard.service_config[0].uri
    http_method = "POST"
    body        = base64encode("{}")
    headers     = { "Content-Type" = "application/json" }

    oidc_token {
      service_account_email = google_service_account.schedule.email
    }
  }

  depends_on = [google_cloud_run_v2_service_iam_member.schedule]
}

# --- what rings ---

# The metric of a service is there when the service was invoked; before, an alert on it is refused.
resource "time_sleep" "invoked" {
  create_duration = "420s"
  triggers        = { job = google_cloud_scheduler_job.guard.id }
}

resource "google_monitoring_alert_policy" "guard" {
  project               = var.project
  display_name          = local.name
  combiner              = "OR"
  notification_channels = var.notification_channels
  user_labels           = local.labels

  conditions {
    display_name = "it fails"

    condition_threshold {
      filter          = "resource.type = \"cloud_run_revision\" AND resource.labels.service_name = \"${local.name}\" AND metric.type = \"run.googleapis.com/request_count\" AND metric.labels.response_code_class != \"2xx\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "600s"

      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_DELTA"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  conditions {
    display_name = "it is silent"

    condition_absent {
      filter   = "resource.type = \"cloud_run_revision\" AND resource.labels.service_name = \"${local.name}\" AND metric.type = \"run.googleapis.com/request_count\" AND metric.labels.response_code_class = \"2xx\""
      duration = "1200s"

      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_DELTA"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  depends_on = [time_sleep.invoked]

  documentation {
    content = "The guard that deletes vmrunner's overdue VMs, disks, addresses and snapshots fails or is silent; its log says what."
  }
}
