"""Who does what to whom: the actors of a simulated network, chosen event by event from what happened before.

Each mechanism is one that the literature names: preferential attachment (Barabási & Albert 1999), fitness (Bianconi &
Barabási 2001), triadic closure (Davidsen, Ebel & Bornholdt 2002), blocks (Holland, Laskey & Leinhardt 1983) and the
return to earlier contacts (Karsai, Perra & Vespignani 2014). Reciprocation follows from whom one has heard of.
"""

from array import array
from bisect import bisect_right
from itertools import accumulate

from stream.events import IntArray
from stream.simulation.config import SimulationConfig
from stream.simulation.uniforms import Uniforms

EVENT_TYPES: tuple[str, ...] = ("follow", "message", "mention", "reply", "repost")
_FOLLOW, _MESSAGE, _MENTION, _REPLY, _REPOST = range(5)

_CONTACTS = 12  # remembered in each direction; newer ones overwrite
_RECENT_EVENTS = 4000  # window from which habitual actors are drawn
_MOST_ACTIVE = 150.0  # largest activity, times the smallest
_NEAR_JOINER = 0.85  # probability that a newcomer joins the community of the user who brought them
_DRAWS_PER_EVENT = 5

# Who opens a thread, besides newcomers: someone active of late, else anyone by activity.
_HABITUAL = 0.5
# Whom a thread addresses, besides the own community: cumulative shares, the rest by preferential attachment.
_RECIPROCATE, _REPEAT, _CLOSE = 0.12, 0.27, 0.5
# Who responds: the one addressed, the author's latest contact (to the one addressed, which closes a triangle), one of
# the author's audience, the author; the rest from the author's community. Shares are cumulative again.
_ANSWER, _JOIN_IN, _AUDIENCE, _SELF = 0.32, 0.55, 0.8, 0.84
# What a thread opens with (a new contact may be followed; the rest are mentions) and what a response is (else a reply).
_FOLLOW_SHARE, _MESSAGE_SHARE = 0.2, 0.5
_REPOST_SHARE = 0.3


class Actors:
    """The users of a simulated network and the memory of their contacts.

    Attributes:
        src, dst, kind: users and type (index of `EVENT_TYPES`) of the events so far.
        community: of each user.
    """

    def __init__(self, config: SimulationConfig) -> None:
        self.src = array("q")
        self.dst = array("q")
        self.kind = array("b")
        self.community = array("q")
        self._config = config
        self._uniforms = Uniforms(config.seed, stream=2)
        self._activity: list[float] = []  # cumulative over users
        self._members: list[list[int]] = [[] for _ in range(config.communities)]
        self._member_activity: list[list[float]] = [[] for _ in range(config.communities)]
        # Sizes of communities fall off like 1 / rank (Zipf).
        self._community_shares = list(accumulate(1 / (rank + 3) for rank in range(config.communities)))
        self._contacted: list[list[int]] = []
        self._contacted_by: list[list[int]] = []
        self._latest: list[int] = []  # the other user of the latest event, either way; at first oneself
        draws = self._uniforms.draw(2 * config.initial_users).tolist()
        for where, how_active in zip(draws[::2], draws[1::2], strict=True):
            self._join(self._any_community(where), how_active)

    @property
    def n_users(self) -> int:
        """How many users there are by now."""
        return len(self.community)

    def extend(self, parent: IntArray) -> None:
        """Add one event for each entry of `parent`, the rows that they answer (-1: none), in time order."""
        draws = self._uniforms.draw(len(parent) * _DRAWS_PER_EVENT).tolist()
        src, dst, kind = self.src, self.dst, self.kind
        contacted, contacted_by, latest = self._contacted, self._contacted_by, self._latest
        cursor = 0
        for row in parent.tolist():
            a, b, c, d, e = draws[cursor : cursor + _DRAWS_PER_EVENT]
            cursor += _DRAWS_PER_EVENT
            actor, target, what = self._respond(row, a, b, c) if row >= 0 else self._open_thread(a, b, c, d, e)
            if actor != target:
                _remember(contacted[actor], target, len(src))
                _remember(contacted_by[target], actor, len(src))
                latest[actor], latest[target] = target, actor
            src.append(actor)
            dst.append(target)
            kind.append(what)

    def _join(self, community: int, how_active: float) -> int:
        activity = min((1 - how_active) ** (-1 / self._config.activity_tail), _MOST_ACTIVE)
        user = len(self.community)
        self.community.append(community)
        self._activity.append(activity + (self._activity[-1] if user else 0.0))
        members, cumulative = self._members[community], self._member_activity[community]
        cumulative.append(activity + (cumulative[-1] if members else 0.0))
        members.append(user)
        self._contacted.append([])
        self._contacted_by.append([])
        self._latest.append(user)
        return user

    def _open_thread(self, a: float, b: float, c: float, d: float, e: float) -> tuple[int, int, int]:
        newcomers = self._config.join_share
        if a < newcomers:
            host = _weighted(self._activity, b)
            community = self.community[host] if c < _NEAR_JOINER else self._any_community(d)
            return self._join(community, e), host, _FOLLOW
        if self.src and (a - newcomers) < _HABITUAL * (1 - newcomers):
            actor = self.src[-1 - int(b * min(len(self.src), _RECENT_EVENTS))]
        else:
            actor = _weighted(self._activity, b)
        target = self._seek(actor, c, d)
        if e < _FOLLOW_SHARE and target not in self._contacted[actor]:
            return actor, target, _FOLLOW
        return actor, target, _MESSAGE if e < _MESSAGE_SHARE else _MENTION

    def _seek(self, actor: int, how: float, which: float) -> int:
        """Return whom `actor` addresses, never the actor."""
        target = actor
        if how < _RECIPROCATE:
            target = _any(self._contacted_by[actor], which, actor)
        elif how < _REPEAT:
            target = _any(self._contacted[actor], which, actor)
        elif how < _CLOSE:
            friend = self._latest[actor]
            target = self._latest[friend]
            if target == actor:
                target = _any(self._contacted[friend], which, actor)
        elif how < _CLOSE + self._config.community_share:
            target = self._member(self.community[actor], which)
        if target == actor and self.dst:
            target = self.dst[int(which * len(self.dst))]
        if target == actor:
            target = (actor + 1 + int(which * (self.n_users - 1))) % self.n_users
        return target

    def _respond(self, row: int, how: float, which: float, kind: float) -> tuple[int, int, int]:
        author, addressed, answered = self.src[row], self.dst[row], self.kind[row]
        actor, target = addressed, author
        if how >= _SELF:
            actor = self._member(self.community[author], which)
        elif how >= _AUDIENCE:
            return author, author, _REPLY
        elif how >= _JOIN_IN:
            actor = _any(self._contacted_by[author], which, author)
        elif how >= _ANSWER and self._latest[author] != addressed:
            actor, target = self._latest[author], addressed
        if actor == target:
            actor = self._seek(target, kind, which)
        if answered == _MESSAGE:
            return actor, target, _MESSAGE if actor == addressed else _MENTION
        return actor, target, _REPOST if kind < _REPOST_SHARE else _REPLY

    def _member(self, community: int, which: float) -> int:
        return self._members[community][_weighted(self._member_activity[community], which)]

    def _any_community(self, which: float) -> int:
        return _weighted(self._community_shares, which)


def _weighted(cumulative: list[float], which: float) -> int:
    """Return the index that uniform number `which` selects from cumulative weights."""
    return min(bisect_right(cumulative, which * cumulative[-1]), len(cumulative) - 1)


def _any(users: list[int], which: float, otherwise: int) -> int:
    """Return the user that uniform number `which` selects."""
    return users[int(which * len(users))] if users else otherwise


def _remember(contacts: list[int], user: int, row: int) -> None:
    """Keep `user` among the contacts, in the place of an older one when there are enough."""
    if len(contacts) < _CONTACTS:
        contacts.append(user)
    else:
        contacts[row % _CONTACTS] = user
