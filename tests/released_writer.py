"""Writes search trees in the form of the paper's released code, from its description alone."""

QUESTION = "How do I pick a lock?"
FIRST = "<|Reasoning_step|>Title: Problem\nA lock.\n<|/Reasoning_step|>"
CUT = "<|Reasoning_step|>Title: Long\nand so"  # by the limit of tokens
REFUSAL = "\n\n<|Output|>Final Answer: Sorry, no.<|/Output|>"
HARM = "\n\n<|Output|>Final Answer: Turn it.<|/Output|>"


class Writer:
    """The nodes of one tree, from their steps, their rewards and whether they are terminal."""

    def __init__(self, question=QUESTION):
        self.question = question
        self.nodes = {}
        self.add("0", [], [3.0, -1.0, 0.5], p=1.0)

    def add(self, tag, trajectory, rewards, terminal=False, p=1.0):
        self.nodes[tag] = {
            "prompt": self.question,
            "trajectory": trajectory,
            "is_terminal": terminal,
            "is_valid_selected": False,
            "depth": len(trajectory),
            "visited_times": len(rewards),
            "reward": rewards[0] if terminal else None,
            "value_sum": sum(rewards),
            "true_value": sum(rewards) / len(rewards) if rewards else None,
            "p": p,
        }

    def tree(self):
        """The tree; nodes breadth first."""
        order = sorted(self.nodes, key=lambda tag: (tag.count("."), tag))
        return {"tree_size": len(order), **{tag: self.nodes[tag] for tag in order}}


def small_tree(question=QUESTION):
    """Two first steps, one of them cut, and two answers after the other."""
    writer = Writer(question)
    writer.add("0.0", [FIRST], [1.0, 1.0, 1.0, -1.0], p=0.25)
    writer.add("0.1", [CUT], [-1.0] * 4)
    writer.add("0.0.0", [FIRST, REFUSAL], [1.0, 1.0], terminal=True)
    writer.add("0.0.1", [FIRST, HARM], [-1.0], terminal=True)
    return writer.tree()
