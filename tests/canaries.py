"""A person each of whose values is found nowhere else, and every way by which they come in.

All texts of a person begin with her own word, so one search tells whether any of them is readable
somewhere, and what follows the word tells which. Fields that are declared clear hold a control
value instead: it must be found where theirs must not.
"""

import base64
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from consumers.rules.times import rfc3339
from runtime.clock import now_ms
from tests.up import ROOT, Up
from tests.waiting import eventually

CONTROL = f"kontrolle{uuid4().hex[:12]}"
"""Names a campaign: readable, because it is not about a person."""
ORDERS = 4
"""Those that one canary has in that campaign: by two calls of a batch, one of its own, one replay."""


@dataclass
class Canary:
    """One person with three identifiers, hence three pseudonyms."""

    up: Up
    word: str

    def of(self, field: str) -> str:
        """The value of that field."""
        return f"{self.word}-{field}"

    @property
    def email(self) -> str:
        return f"{self.word}-mail@example.org"

    @property
    def ip(self) -> str:
        """Of the range for documentation (RFC 3849), and of nobody else."""
        digits = self.word[-12:]
        return f"2001:db8:{digits[:4]}:{digits[4:8]}:{digits[8:]}::1".replace(":0", ":a")

    @property
    def subjects(self) -> tuple[str, str, str]:
        return (f"user:{self.of('user')}", f"anonymous:{self.of('browser')}", f"email:{self.email}")

    @property
    def words(self) -> dict[str, bytes]:
        """What must not be readable anywhere."""
        return {"word": self.word.encode(), "address": self.ip.encode()}

    # -- ways in

    def call(self, kind: str, **who: Any) -> dict[str, Any]:
        """A call with a value of hers in every field that takes one."""
        page = {
            "url": f"https://shop.example/{self.of('url')}?q={self.of('query')}",
            "path": f"/{self.of('path')}",
            "referrer": f"https://search.example/{self.of('referrer')}",
            "search": f"?q={self.of('search')}",
            "title": self.of("title"),
        }
        context = {
            "ip": self.ip,
            "userAgent": f"Mozilla/5.0 (Linux; Android 14) {self.of('agent')}",
            "locale": self.of("locale"),
            "timezone": self.of("timezone"),
            "page": page,
            "device": {"id": self.of("device"), "advertisingId": self.of("advertising")},
            "location": {"city": self.of("city"), "latitude": self.of("latitude")},
            "campaign": {"name": CONTROL, "content": CONTROL},
            "consent": {"categoryPreferences": {"analytics": True, "sale": False}},
            "unknown": {self.of("key-of-context"): [self.of("in-list")]},
        }
        properties = {
            "campaign_id": CONTROL,
            "order_id": f"{CONTROL}-{uuid4().hex[:8]}",
            "total": "12.50",
            "currency": "EUR",
            "note": f"Please ring at {self.of('free-text')}.",
            "address": {"street": self.of("street"), "deep": [[{"er": self.of("deep")}]]},
            self.of("key-of-properties"): 1,
        }
        traits = {
            "name": self.of("name"),
            "phone": self.of("phone"),
            "birthday": self.of("birthday"),
            "address": {"postalCode": self.of("postal")},
            self.of("key-of-traits"): True,
        }
        call: dict[str, Any] = {
            "messageId": uuid4().hex,
            "timestamp": rfc3339(now_ms()),
            "type": kind,
            "context": context,
            "integrations": {self.of("integration"): {"id": self.of("integration-id")}},
            **who,
        }
        if kind in ("identify", "group"):
            call["traits"] = traits
        if kind == "group":
            call["groupId"] = self.of("group")
        if kind == "alias":
            call["previousId"] = self.of("previous")
        if kind in ("track", "page", "screen"):
            call["properties"] = properties
        if kind == "track":
            call["event"] = "Order Completed"
        if kind in ("page", "screen"):
            call["name"] = self.of("page")
        return call

    def send(self, kind: str, body: dict[str, Any], **headers: str) -> httpx.Response:
        """One request as an SDK sends it; answered 200."""
        secret = base64.b64encode(f"{self.up.ready['keys']['write']}:".encode()).decode()
        answer = httpx.post(
            f"{self.up.ready['url']}/v1/{kind}",
            json=body,
            headers={
                "Authorization": f"Basic {secret}",
                "User-Agent": f"Mozilla/5.0 (X11; Linux x86_64) {self.of('own-agent')}",
                "X-Forwarded-For": self.ip,
                **headers,
            },
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        return answer

    def ask(self, role: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        """One request to the API."""
        headers = {"Authorization": f"Bearer {self.up.ready['keys'][role]}"}
        url = f"{self.up.ready['url']}{path}"
        if body is None:
            return httpx.get(url, headers=headers, timeout=60)
        return httpx.post(url, json=body, headers=headers, timeout=60)

    def run(self, *arguments: str) -> str:
        """A command of Headwater, which succeeds; what it prints."""
        ended = subprocess.run(
            [sys.executable, "-m", "headwater", *arguments, "--data-dir", str(self.up.data_dir)],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def come_in(self, files: Path) -> None:
        """She came by every way there is, with ORDERS that count. `files` is a directory for lists,
        which are the sender's own."""
        user, browser = {"userId": self.of("user")}, {"anonymousId": self.of("browser")}
        mail = {"email": self.email}
        for kind in ("identify", "page", "screen", "group", "alias", "track"):
            self.send(kind, self.call(kind, **user, **browser))
        batch = [
            self.call("track", **browser),
            {**self.call("identify", **browser), "traits": mail},
            {**self.call("track"), "context": {"traits": mail}},
            # Set aside by the collector, each for another reason.
            {**self.call("track", **user), "properties": self.of("no-object")},
            {**self.call("track", **user), "timestamp": self.of("no-time")},
            {**self.call("track", **user), "type": self.of("no-type")},
            {**self.call("track", **user), "properties": {"total": self.of("no-amount")}},
        ]
        self.send("batch", {"batch": batch})
        self._say_what_she_decided(user)
        self.come_by_file(files)
        self._come_by_list(files)

    def _say_what_she_decided(self, user: dict[str, str]) -> None:
        matter = {"channel": "email", "topic": "news"}
        proof = {"method": "form", "text_version": "1", "text": self.of("text"), "language": "en"}
        proven = {"source": "form", "proof": proof}
        subject = self.subjects[0]
        for each in self.subjects:
            said = {"subject": each, **matter, "status": "subscribed", **proven}
            answer = self.ask("consent_desk", "/v1/consents", said)
            assert answer.status_code == 200, answer.text
        offers = {"subject": subject, "channel": "email", "topic": "offers", **proven}
        answer = self.ask("consent_desk", "/v1/consents", {**offers, "status": "pending"})
        confirm = answer.json()["confirm"]["url"]
        preferences, unsubscribe = (
            self.ask("consent_desk", "/v1/consents/links", {"subject": subject, **more}).json()[
                "url"
            ]
            for more in ({"kind": "preferences"}, {"kind": "unsubscribe", **matter})
        )
        forms = {
            confirm: {"confirm": "yes"},
            preferences: {"purpose/sale": "no"},
            unsubscribe: {"List-Unsubscribe": "One-Click"},
        }
        for url, form in forms.items():
            assert httpx.get(url, timeout=30).status_code == 200
            assert httpx.post(url, data=form, timeout=30).status_code == 200
        updated = {**self.call("track", **user), "event": "Segment Consent Preference Updated"}
        self.send("track", updated)
        rudder = self.call("track", **user) | {"event": "Unsubscribed"}
        rudder["context"] = {
            "consentManagement": {"allowedConsentIds": [], "deniedConsentIds": ["sale"]}
        }
        self.send("track", rudder, **{"Sec-GPC": "1"})

    def come_by_file(self, files: Path) -> None:
        """An order of hers was replayed from a file, the same at every call."""
        rows, mapping = files / f"{self.word}.jsonl", files / "mapping.toml"
        row = {"who": self.of("user"), "note": self.of("replayed"), "paid": "1.00"}
        if not rows.exists():
            rows.write_text(json.dumps(row | {"order": uuid4().hex}) + "\n")
        mapping.write_text(
            '[file]\nformat = "jsonl"\n[call]\ntype = "track"\nevent = "Order Completed"\n'
            'userId = "{who}"\n[call.properties]\norder_id = "{order}"\nnote = "{note}"\n'
            f'campaign_id = "{CONTROL}"\ncurrency = "EUR"\n'
            'total = { column = "paid", type = "decimal" }\n'
        )
        self.run("replay", str(rows), "--mapping", str(mapping))

    def _come_by_list(self, files: Path) -> None:
        consents = files / f"{self.word}.csv"
        consents.write_text(
            "email,channel,topic,status,time,source,method,text_version\n"
            f"{self.email},email,bought,subscribed,2025-03-01T09:00:00Z,Vendor,form,1\n"
        )
        self.run("consent", "import", str(consents))

    def pass_by(self) -> None:
        """Everything that answers about her was asked, also for what is not there."""
        for subject in self.subjects:
            for role, path in (
                ("activation", f"/v1/profiles/{subject}"),
                ("consent_desk", f"/v1/consents/{subject}"),
                ("privacy_officer", f"/v1/subjects/{subject}/export"),
            ):
                assert self.ask(role, path).status_code == 200
        self.ask("activation", f"/v1/profiles/{self.of('nobody')}")
        self.ask("privacy_officer", f"/v1/erasures/{self.of('no-erasure')}")
        self.ask("viewer", f"/v1/{self.of('no-path')}?{self.of('no-query')}=1")
        self.ask("privacy_officer", "/v1/erasures", {"subject": f"user:{self.of('nobody')}"})
        broken = f'{{"userId": "{self.of("broken")}'.encode()
        secret = base64.b64encode(f"{self.up.ready['keys']['write']}:".encode()).decode()
        answer = httpx.post(
            f"{self.up.ready['url']}/v1/track",
            content=broken,
            headers={"Authorization": f"Basic {secret}"},
            timeout=30,
        )
        assert answer.status_code == 400

    def has_profile(self, subject: str) -> bool:
        """True if tools are shown a profile of hers."""
        return self.ask("activation", f"/v1/profiles/{subject}").status_code == 200

    def erase(self) -> list[str]:
        """Each of her identifiers is to be forgotten; the ids of the erasures."""
        asked = [
            self.ask("privacy_officer", "/v1/erasures", {"subject": each, "reason": "withdrawn"})
            for each in self.subjects
        ]
        assert {answer.status_code for answer in asked} == {202}, [a.text for a in asked]
        return [str(answer.json()["erasure_id"]) for answer in asked]

    def status(self, erasure_id: str) -> str:
        """How far an erasure is; empty while nobody knows it."""
        answer = self.ask("privacy_officer", f"/v1/erasures/{erasure_id}")
        return str(answer.json()["status"]) if answer.status_code == 200 else ""

    def await_provisional(self, erasure_id: str) -> None:
        """Every store was looked into since, and is empty."""
        eventually(lambda: self.status(erasure_id) == "provisional", within_s=60)
