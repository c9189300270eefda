"""GH Archive: the public timeline of GitHub, as the declarative mapping that anyone could write.

Source of the format: https://www.gharchive.org and GitHub's event types. An event is with the person whom the payload
names (a new member, the author of an issue or a pull request) where that is somebody else, else with the repository.
"""

from infra.settings import FormatSettings

GH_ARCHIVE = FormatSettings(
    src="actor.login",
    dst=["payload.member.login", "payload.issue.user.login", "payload.pull_request.user.login", "repo.name"],
    ts="created_at",
    type="type",
    id="id",
)
