output "store_url" {
  description = "MACROFLEET_STORE_URL."
  value       = "s3://${aws_s3_bucket.this["models"].id}/${var.prefix}"
}

output "mlflow_artifacts" {
  description = "MLflow's --artifacts-destination."
  value       = "s3://${aws_s3_bucket.this["mlflow"].id}/artifacts"
}

output "roles" {
  description = "By service account, what its annotation eks.amazonaws.com/role-arn names."
  value       = { for name, role in aws_iam_role.this : name => role.arn }
}

output "repositories" {
  description = "Where images are pushed to."
  value       = { for name, repository in aws_ecr_repository.this : name => repository.repository_url }
}

output "sagemaker_endpoint" {
  description = "The endpoint's name; null where there is none."
  value       = one([for endpoint in aws_sagemaker_endpoint.this : endpoint.name])
}
