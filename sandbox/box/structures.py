"""Linked lists and trees as call-based problems pass and return them. Nothing of the harness is reachable here."""


class ListNode:
    def __init__(self, val=0, next=None) -> None:
        self.val = val
        self.next = next


class TreeNode:
    def __init__(self, val=0, left=None, right=None) -> None:
        self.val = val
        self.left = left
        self.right = right


def makers(namespace: dict) -> dict:
    """What a test's `call` may use, by name: the nodes are of the program's own classes where it has written some."""

    def make_linked_list(values):
        """The first node of a list of `values`; None for none."""
        head = None
        for value in reversed(values or []):
            node = namespace["ListNode"](value)
            node.next, head = head, node
        return head

    def make_tree(values):
        """The root of a tree written level by level, null for a missing child; None for none."""
        if not values or values[0] is None:
            return None
        root = namespace["TreeNode"](values[0])
        row, place = [root], 1
        for node in row:
            for side in ("left", "right"):
                if place < len(values) and values[place] is not None:
                    child = namespace["TreeNode"](values[place])
                    setattr(node, side, child)
                    row.append(child)
                place += 1
        return root

    return {"make_linked_list": make_linked_list, "make_tree": make_tree}


def written_out(value):
    """(marker, values) of a linked list or tree that `value` is the head of; None for anything else.

    TypeError for a chain or tree that comes back to itself.
    """
    if hasattr(value, "val") and hasattr(value, "next"):
        return "__linked_list__", _along(value)
    if hasattr(value, "val") and hasattr(value, "left") and hasattr(value, "right"):
        return "__tree__", _by_level(value)
    return None


def _along(node) -> list:
    values, met = [], set()
    while node is not None:
        if id(node) in met:
            raise TypeError("the returned linked list comes back to itself")
        met.add(id(node))
        values.append(node.val)
        node = node.next
    return values


def _by_level(root) -> list:
    values, row, met = [], [root], set()
    for node in row:
        values.append(None if node is None else node.val)
        if node is not None:
            if id(node) in met:
                raise TypeError("the returned tree comes back to itself")
            met.add(id(node))
            row += [node.left, node.right]
    while values[-1] is None:
        values.pop()
    return values
