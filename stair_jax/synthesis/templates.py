"""What a model is asked for an answer: a text around the prompt, and perhaps around a policy."""

import re

from stair_jax.errors import UserError, did_you_mean
from stair_jax.text.steps import format_output, format_step

_PLACEHOLDER = re.compile(r"\{prompt\}|\{policy\}|\{answer\}|\{form\}")

# What `{form}` stands for: the grammar, for writers that were not trained on it.
STRUCTURE = f"""\
{format_step("what this step is about, in a few words", "The thoughts of this step.")}

{format_step("what the next step is about", "Its thoughts.")}

{format_output("what the user is to read, and nothing of the steps")}

There is at least one reasoning step; each begins with its title, on a line of its own. One output \
block closes the reply. Copy the tags exactly, and write nothing outside of the blocks."""

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
    # The paper's SFT data (STAIR, section 3.1): a given answer becomes steps. In our own words.
    "rewrite": """\
Below are the request of a user and an answer to it. Rewrite the answer as a chain of reasoning \
that ends in a final answer.

### Request
{prompt}

### Answer
{answer}

### How to write
Reason towards the answer step by step: what the user wants, whether helping could do harm, what \
follows from that, and then the matter itself. Each step says why, and rests on those before it. \
The final answer says what the given answer says, in its tone and no less completely; where that \
is a refusal, it refuses. Write as if you had found it yourself: do not mention that an answer was \
given.

### Form
{form}""",
    # The same where no answer is given.
    "steps": """\
Below is the request of a user.

### Request
{prompt}

### How to answer
Think step by step: what the user wants, whether helping could do harm, what follows from that, \
and then the matter itself. Then write the final answer; refuse politely, in a sentence or two, \
where an answer would do harm.

### Form
{form}""",
    # "deliberative" for a writer that has to be told the form.
    "deliberative_steps": """\
Below are a policy and the request of a user. Answer the request as the policy says.

### Policy
{policy}

### Request
{prompt}

### How to answer
Think step by step: what the user wants, which part of the policy applies, and what it asks for. \
Then write the final answer. It speaks to the user, and does not mention that there is a policy.

### Form
{form}""",
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
      UserError: `{prompt}` does not stand in it once, `{answer}` or `{form}` more than once, or
        `{policy}` where there are no policies, or the other way round.
    """
    text = find_template(template)
    if text.count("{prompt}") != 1:
        raise UserError(
            f"the template must hold {{prompt}} once, not {text.count('{prompt}')} times"
        )
    for name in ("{answer}", "{form}"):
        if text.count(name) > 1:
            raise UserError(f"the template must hold {name} once, not {text.count(name)} times")
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


def shows_answer(template: str) -> bool:
    """Whether a template shows the answer of the prompt's row."""
    return "{answer}" in find_template(template)


def fill_template(template: str, prompt: str, policy: str = "", answer: str = "") -> str:
    """The template with prompt, policy and answer in their places, in which nothing is replaced."""
    values = {
        "{prompt}": prompt.strip(),
        "{policy}": policy.strip(),
        "{answer}": answer.strip(),
        "{form}": STRUCTURE,
    }
    return _PLACEHOLDER.sub(lambda found: values[found[0]], template)
