def can_run(logits, target):
    return False
