variable "region" {
  description = "Where everything is."
  type        = string
}

variable "bucket" {
  description = "The name of the bucket of models: MACROFLEET_STORE_URL=s3://bucket/prefix."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "It is no name of a bucket."
  }
}

variable "prefix" {
  description = "What every key in it begins with, without slashes at its ends; not empty, so that one bucket can hold a second fleet."
  type        = string
  default     = "production"

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$", var.prefix))
    error_message = "It is no prefix: words of letters, digits, _ and -, with slashes between them."
  }
}

variable "mlflow_bucket" {
  description = "The name of the bucket of MLflow's artifacts."
  type        = string
}

variable "noncurrent_days" {
  description = "How long what was written over or deleted can be brought back. Deleting a tenant does not wait for it."
  type        = number
  default     = 30

  validation {
    condition     = var.noncurrent_days >= 7
    error_message = "Garbage collection counts on a week in which a fleet can be taken back."
  }
}

variable "other_region" {
  description = "The store of another region (docs/regions.md): servers here read it while theirs is away; where it is the home, it is copied here. Null where there is one region."
  type = object({
    bucket_arn = string
    prefix     = string
    key_arn    = string
    is_home    = bool
  })
  default = null
}

variable "cluster_oidc" {
  description = "The identity provider of the Kubernetes cluster whose service accounts take the roles: its ARN, and its address without https://. Null where there is none."
  type = object({
    arn = string
    url = string
  })
  default = null
}

variable "namespace" {
  description = "Of these service accounts."
  type        = string
  default     = "macrofleet"
}

variable "trusted_principals" {
  description = "ARNs that may take the roles, too, by role: a user who deploys, a role of an instance."
  type        = map(list(string))
  default     = {}

  validation {
    condition     = alltrue([for role in keys(var.trusted_principals) : contains(["serving", "training", "operations", "release", "mlflow", "copier"], role)])
    error_message = "A role is serving, training, operations, release, mlflow or copier."
  }

  validation {
    condition     = var.cluster_oidc != null || alltrue([for role in local.roles : length(lookup(var.trusted_principals, role, [])) > 0])
    error_message = "Without a cluster, name somebody for each role."
  }
}

variable "sagemaker" {
  description = "A multi-model endpoint of our container; null makes none. The image is the tag in the registry made here, and signing_key is MACROFLEET_SIGNING_KEY."
  type = object({
    image_tag     = string
    instance_type = optional(string, "ml.m7i.large")
    instances     = optional(number, 2)
    memory_bytes  = optional(number, 4294967296)
    signing_key   = string
  })
  default   = null
  sensitive = true
}
