# A multi-model endpoint of our own container (docs/sagemaker.md, docs/aws.md): for who stays with SageMaker, or comes from it.
# Archives are put below ModelDataUrl by `macrofleet models export`; the endpoint reads nothing else of the store.

locals {
  endpoint = nonsensitive(var.sagemaker != null) ? toset(["macrofleet"]) : toset([])
}

data "aws_iam_policy_document" "sagemaker_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["sagemaker.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

resource "aws_iam_role" "sagemaker" {
  for_each = local.endpoint

  name               = "macrofleet-sagemaker"
  assume_role_policy = data.aws_iam_policy_document.sagemaker_trust.json
}

resource "aws_iam_role_policy" "sagemaker" {
  for_each = local.endpoint

  name = "endpoint"
  role = aws_iam_role.sagemaker[each.key].id
  policy = templatefile("${path.module}/policies/sagemaker.json", {
    bucket     = aws_s3_bucket.this["models"].arn
    prefix     = var.prefix
    key        = aws_kms_key.store.arn
    repository = aws_ecr_repository.this["macrofleet-serving"].arn
    logs       = "arn:${data.aws_partition.current.partition}:logs:${var.region}:${data.aws_caller_identity.current.account_id}:log-group:/aws/sagemaker/Endpoints/macrofleet"
  })
}

resource "aws_sagemaker_model" "this" {
  for_each = local.endpoint

  # Another image or environment is another model, which is made before the one before goes.
  name               = "macrofleet-${nonsensitive(substr(sha256("${var.sagemaker.image_tag} ${var.sagemaker.memory_bytes}"), 0, 12))}"
  execution_role_arn = aws_iam_role.sagemaker[each.key].arn

  primary_container {
    image          = "${aws_ecr_repository.this["macrofleet-serving"].repository_url}:${var.sagemaker.image_tag}"
    mode           = "MultiModel"
    model_data_url = "s3://${aws_s3_bucket.this["models"].id}/${var.prefix}/sagemaker/"

    # SageMaker starts the image with `serve` and nothing else.
    environment = {
      MACROFLEET_SAGEMAKER        = "true"
      MACROFLEET_SAGEMAKER_ACCESS = "platform"
      MACROFLEET_MEMORY_BYTES     = tostring(var.sagemaker.memory_bytes)
      MACROFLEET_SIGNING_KEY      = var.sagemaker.signing_key
    }

    # Of many models most are seldom asked for.
    multi_model_config {
      model_cache_setting = "Enabled"
    }
  }

  lifecycle {
    create_before_destroy = true
  }

  depends_on = [aws_iam_role_policy.sagemaker]
}

resource "aws_sagemaker_endpoint_configuration" "this" {
  for_each = local.endpoint

  name_prefix = "macrofleet-"

  production_variants {
    variant_name           = "all"
    model_name             = aws_sagemaker_model.this[each.key].name
    instance_type          = var.sagemaker.instance_type
    initial_instance_count = var.sagemaker.instances
    # TensorFlow takes its time to start.
    container_startup_health_check_timeout_in_seconds = 300
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_sagemaker_endpoint" "this" {
  for_each = local.endpoint

  name                 = "macrofleet"
  endpoint_config_name = aws_sagemaker_endpoint_configuration.this[each.key].name
}
