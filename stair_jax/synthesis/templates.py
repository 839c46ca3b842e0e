"""What a model is asked for an answer: a text around the prompt, and perhaps around a policy."""

import re

from stair_jax.errors import UserError, did_you_mean

_PLACEHOLDER = re.compile(r"\{prompt\}|\{policy\}")

TEMPLATES = {
    # After Deliberative Alignment (Guan et al., arXiv:2412.16339, section 2): the model reasons
    # about a policy that it is shown, and later learns to do so without. In our own words.
    "deliberative": """\
Below are a policy and the request of a user. Answer the request as the policy says.

### Policy
{policy}

### Request
{prompt}

### How to answer
Think step by step: what the user wants, which part of the policy applies, and what it asks for. \
Then write the final answer. It speaks to the user, and does not mention that there is a policy.""",
    # What the paper's baselines have in place of the chosen answers to harmful prompts.
    # The task stands behind the request, where small models heed it most.
    "refusal": """\
Below is the request of a user, which must not be met.

### Request
{prompt}

### How to answer
Refuse in one polite sentence that begins with "I'm sorry, but I can't help" and says what you \
will not help with. Write nothing else.""",
}


def find_template(template: str) -> str:
    """A template as text: one of ours by its name, or the text itself.

    Raises:
      UserError: it is neither a name nor has a placeholder.
    """
    if template in TEMPLATES:
        return TEMPLATES[template]
    if "{" not in template:
        raise UserError(
            f"template {template!r} is no text with {{prompt}}, nor the name of one of ours: "
            f"{did_you_mean(template, TEMPLATES)}"
        )
    return template


def check_template(template: str, has_policies: bool) -> None:
    """Checks that a template has the places that it needs.

    Raises:
      UserError: `{prompt}` does not stand in it once, or `{policy}` where there are no policies, or
        the other way round.
    """
    text = find_template(template)
    if text.count("{prompt}") != 1:
        raise UserError(
            f"the template must hold {{prompt}} once, not {text.count('{prompt}')} times"
        )
    if has_policies and text.count("{policy}") != 1:
        raise UserError(
            "policies are set, and the template does not hold {policy} once: add it, or set "
            "template='deliberative'"
        )
    if not has_policies and "{policy}" in text:
        raise UserError(
            "the template holds {policy}, and there are none: set default_policies=True, or name "
            "some in policies"
        )


def fill_template(template: str, prompt: str, policy: str = "") -> str:
    """The template with prompt and policy in their places, in which nothing is replaced."""
    values = {"{prompt}": prompt.strip(), "{policy}": policy.strip()}
    return _PLACEHOLDER.sub(lambda found: values[found[0]], template)
