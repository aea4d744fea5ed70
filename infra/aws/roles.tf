# One role for each of those that run something, named as the service accounts of infra/kubernetes are. What each may do is in
# policies/, which a test evaluates against the requests that the code makes.

locals {
  copied = try(var.other_region.is_home, false)
  roles  = toset(concat(["serving", "training", "operations", "release", "mlflow"], local.copied ? ["copier"] : []))
}

data "aws_iam_policy_document" "trust" {
  for_each = local.roles

  dynamic "statement" {
    for_each = var.cluster_oidc == null ? [] : [var.cluster_oidc]

    content {
      actions = ["sts:AssumeRoleWithWebIdentity"]

      principals {
        type        = "Federated"
        identifiers = [statement.value.arn]
      }

      condition {
        test     = "StringEquals"
        variable = "${statement.value.url}:sub"
        values   = ["system:serviceaccount:${var.namespace}:${each.key}"]
      }

      condition {
        test     = "StringEquals"
        variable = "${statement.value.url}:aud"
        values   = ["sts.amazonaws.com"]
      }
    }
  }

  dynamic "statement" {
    for_each = length(lookup(var.trusted_principals, each.key, [])) == 0 ? [] : [var.trusted_principals[each.key]]

    content {
      actions = ["sts:AssumeRole"]

      principals {
        type        = "AWS"
        identifiers = statement.value
      }
    }
  }
}

resource "aws_iam_role" "this" {
  for_each = local.roles

  name                 = "macrofleet-${each.key}"
  assume_role_policy   = data.aws_iam_policy_document.trust[each.key].json
  max_session_duration = 3600
}

resource "aws_iam_role_policy" "store" {
  for_each = local.roles

  name = "store"
  role = aws_iam_role.this[each.key].id
  policy = templatefile("${path.module}/policies/${each.key}.json", {
    bucket = aws_s3_bucket.this[each.key == "mlflow" ? "mlflow" : "models"].arn
    prefix = var.prefix
    key    = aws_kms_key.store.arn
    # What the copier reads; nobody else's policy names it.
    home_bucket = try(var.other_region.bucket_arn, "")
    home_prefix = try(var.other_region.prefix, "")
    home_key    = try(var.other_region.key_arn, "")
  })
}

# A server's rights in the other region's store are those in its own.
resource "aws_iam_role_policy" "other_region" {
  for_each = var.other_region == null ? toset([]) : toset(["serving"])

  name = "other-region"
  role = aws_iam_role.this[each.key].id
  policy = templatefile("${path.module}/policies/serving.json", {
    bucket = var.other_region.bucket_arn
    prefix = var.other_region.prefix
    key    = var.other_region.key_arn
  })
}
