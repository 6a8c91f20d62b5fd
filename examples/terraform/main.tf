# What one cell is, here: virtual machines of a cloud. Put your own in the place of the resource; keep the variables and the
# output.
variable "cell" { type = string }
variable "service" { type = string }
variable "owner" { type = string }
variable "expires_at" { type = string }
variable "instances" { type = list(string) }
variable "blueprint" { type = any }
variable "idle" { type = bool }
variable "destroying" { type = bool }

variable "subnet" { type = string } # TF_VAR_subnet

resource "aws_instance" "cell" {
  for_each      = toset(var.instances)
  ami           = var.blueprint.image.os
  instance_type = "t3.medium"
  subnet_id     = var.subnet
  user_data     = jsonencode(var.blueprint.image) # the machine image reads its command there at boot
  tags = {
    "Name"                     = each.key
    "understudy.dev/cell"      = var.cell
    "understudy.dev/service"   = var.service
    "understudy.dev/owner"     = replace(var.owner, "/[^a-zA-Z0-9 _.:=+@-]/", "-")
    "understudy.dev/expiresAt" = var.expires_at
  }
}

# Idle is stopped: it costs its disk.
resource "aws_ec2_instance_state" "cell" {
  for_each    = aws_instance.cell
  instance_id = each.value.id
  state       = var.idle ? "stopped" : "running"
}

output "addresses" {
  value = { for name, machine in aws_instance.cell : name => machine.private_ip }
}
