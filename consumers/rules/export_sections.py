"""What does an export consist of, in words that the person understands?"""

from consumers.rules.export_formats import Section

SECTIONS = (
    Section(
        "identifiers",
        "Identifiers",
        "By what you are known here. Kept apart from all else, sealed with a key of your own.",
        ("type", "value", "where", "kept", "used_for"),
    ),
    Section(
        "claims",
        "Who said what is yours",
        "Calls, or people by hand, by whose word an identifier is yours, or somebody else's.",
        ("identifier", "of", "cause", "at", "event_id", "stands", "where", "kept", "used_for"),
    ),
    Section(
        "links",
        "Whom you are counted as",
        "Which of your identifiers count as one person, and since which record no more.",
        ("identifier", "counts_as", "says", "is_newest", "where", "source_record", "kept",
         "used_for"),
    ),
    Section("profile", "Profile", "What your events add up to."),
    Section(
        "traits",
        "What you told, or was told, about you",
        "The newest value of each, and the call that set it.",
        ("name", "value", "set_at", "set_by", "event_id", "where", "kept", "used_for"),
    ),
    Section(
        "decisions",
        "Decisions in force",
        "What you allowed or refused, as it is applied.",
        ("subject_of", "status", "valid_from", "valid_to", "recorded_at", "used_for"),
    ),
    Section("consents", "Every decision, with its proof", "As recorded, in the order of the log."),
    Section(
        "accesses",
        "Who read your data",
        "Each reading through the interfaces, this export included; the newest first.",
        ("read_at", "role", "what", "fields", "kept", "used_for"),
    ),
    Section(
        "messages",
        "Messages",
        "What was sent to you, waits or was not sent, and by which rule.",
        ("due_at", "state", "journey_id", "step", "channel", "campaign_id", "decisions", "where",
         "kept", "used_for"),
    ),
    Section(
        "counters",
        "Counts that you are part of",
        "What your events add to the numbers of each campaign.",
        ("campaign_id", "metric", "value", "currency", "amount", "facts"),
    ),
    Section(
        "facts",
        "Facts behind the counts",
        "One for each of your events, and one for each visit that it changed.",
        ("campaign_id", "metric", "counts", "value", "amount", "currency", "occurred_at",
         "received_at",
         "event_id", "source_record", "kept", "used_for"),
    ),
    Section(
        "events",
        "Every event",
        "What was sent about you, by which source, when, where it lies and until when. Of calls "
        "that set traits: what they changed (rectifications).",
    ),
)  # fmt: skip
