//! The kinds of events, by their names and families.

/// What kind of change an event tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventType {
    /// `library.created`
    LibraryCreated,
    /// `library.updated`
    LibraryUpdated,
    /// `library.deleted`
    LibraryDeleted,
    /// `document.added`, also called `document.created`
    DocumentAdded,
    /// `document.updated`
    DocumentUpdated,
    /// `document.deleted`
    DocumentDeleted,
    /// `chunk.added`
    ChunkAdded,
    /// `chunk.deleted`
    ChunkDeleted,
    /// `index.rebuilt`
    IndexRebuilt,
    /// `index.optimized`
    IndexOptimized,
    /// `batch.started`
    BatchStarted,
    /// `batch.completed`
    BatchCompleted,
    /// `batch.failed`
    BatchFailed,
    /// `query.matched`
    QueryMatched,
    /// `job.submitted`
    JobSubmitted,
    /// `job.started`
    JobStarted,
    /// `job.progress`
    JobProgress,
    /// `job.retrying`
    JobRetrying,
    /// `job.cancelling`
    JobCancelling,
    /// `job.completed`
    JobCompleted,
    /// `job.failed`
    JobFailed,
    /// `job.cancelled`
    JobCancelled,
    /// `cost.threshold_reached`
    CostThresholdReached,
    /// `cost.budget_exceeded`
    CostBudgetExceeded,
}

impl EventType {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::LibraryCreated,
        Self::LibraryUpdated,
        Self::LibraryDeleted,
        Self::DocumentAdded,
        Self::DocumentUpdated,
        Self::DocumentDeleted,
        Self::ChunkAdded,
        Self::ChunkDeleted,
        Self::IndexRebuilt,
        Self::IndexOptimized,
        Self::BatchStarted,
        Self::BatchCompleted,
        Self::BatchFailed,
        Self::QueryMatched,
        Self::JobSubmitted,
        Self::JobStarted,
        Self::JobProgress,
        Self::JobRetrying,
        Self::JobCancelling,
        Self::JobCompleted,
        Self::JobFailed,
        Self::JobCancelled,
        Self::CostThresholdReached,
        Self::CostBudgetExceeded,
    ];

    /// Its name: the family, a dot, what happened.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LibraryCreated => "library.created",
            Self::LibraryUpdated => "library.updated",
            Self::LibraryDeleted => "library.deleted",
            Self::DocumentAdded => "document.added",
            Self::DocumentUpdated => "document.updated",
            Self::DocumentDeleted => "document.deleted",
            Self::ChunkAdded => "chunk.added",
            Self::ChunkDeleted => "chunk.deleted",
            Self::IndexRebuilt => "index.rebuilt",
            Self::IndexOptimized => "index.optimized",
            Self::BatchStarted => "batch.started",
            Self::BatchCompleted => "batch.completed",
            Self::BatchFailed => "batch.failed",
            Self::QueryMatched => "query.matched",
            Self::JobSubmitted => "job.submitted",
            Self::JobStarted => "job.started",
            Self::JobProgress => "job.progress",
            Self::JobRetrying => "job.retrying",
            Self::JobCancelling => "job.cancelling",
            Self::JobCompleted => "job.completed",
            Self::JobFailed => "job.failed",
            Self::JobCancelled => "job.cancelled",
            Self::CostThresholdReached => "cost.threshold_reached",
            Self::CostBudgetExceeded => "cost.budget_exceeded",
        }
    }

    /// Its family.
    pub fn family(self) -> &'static str {
        self.name().split('.').next().unwrap_or_default()
    }

    /// Whether it is sent only to those who name it or its family: there are too many of them.
    pub fn is_rare_wish(self) -> bool {
        matches!(self, Self::ChunkAdded | Self::ChunkDeleted)
    }
}

/// A set of kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventTypes(u64);

/// A name that no event has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid event type: {name}")]
pub struct UnknownEventType {
    /// As it was given, cut to 64 characters.
    pub name: String,
}

impl EventTypes {
    /// None.
    pub const NONE: Self = Self(0);

    /// Those that are sent to whoever names none: all but those of chunks.
    pub fn usual() -> Self {
        EventType::ALL.into_iter().filter(|event| !event.is_rare_wish()).collect()
    }

    /// Reads names separated by commas: types, families (`document.*`) and `*`, which means the
    /// usual ones. Nothing means the usual ones too.
    pub fn parse(names: &str) -> Result<Self, UnknownEventType> {
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        Self::of(names)
    }

    /// As [`EventTypes::parse`], of names one by one.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownEventType> {
        let mut types = Self::NONE;
        for name in names {
            let named = match name {
                "*" => Self::usual(),
                "document.created" => Self::only(EventType::DocumentAdded),
                _ => EventType::ALL
                    .into_iter()
                    .filter(|event| {
                        event.name() == name || name.strip_suffix(".*") == Some(event.family())
                    })
                    .collect(),
            };
            if named == Self::NONE {
                return Err(UnknownEventType { name: name.chars().take(64).collect() });
            }
            types.0 |= named.0;
        }
        Ok(if types == Self::NONE { Self::usual() } else { types })
    }

    /// This one.
    pub fn only(event: EventType) -> Self {
        Self(1 << event as u8)
    }

    /// Whether it is one of them.
    pub fn contains(self, event: EventType) -> bool {
        self.0 & Self::only(event).0 != 0
    }

    /// Whether some are in both.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl FromIterator<EventType> for EventTypes {
    fn from_iter<I: IntoIterator<Item = EventType>>(types: I) -> Self {
        Self(types.into_iter().fold(0, |set, event| set | Self::only(event).0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_families_and_the_star_mean_what_they_say() {
        for (at, event) in EventType::ALL.into_iter().enumerate() {
            assert_eq!(event as usize, at);
            assert_eq!(EventTypes::parse(event.name()), Ok(EventTypes::only(event)));
            let family = EventTypes::parse(&format!("{}.*", event.family())).unwrap();
            assert!(family.contains(event));
        }
        assert_eq!(EventTypes::parse(""), Ok(EventTypes::usual()));
        assert_eq!(EventTypes::parse(" * ,"), Ok(EventTypes::usual()));
        assert!(!EventTypes::usual().contains(EventType::ChunkAdded));
        let chunks = EventTypes::parse("*,chunk.*").unwrap();
        assert_eq!(chunks, EventType::ALL.into_iter().collect());
        let created = EventTypes::parse("document.created, library.deleted").unwrap();
        assert!(created.contains(EventType::DocumentAdded));
        assert!(!created.contains(EventType::LibraryCreated));
        for name in ["nonsense", "document", ".*", "document.", "Document.added", "**", "a.*"] {
            let error = EventTypes::parse(&format!("document.added,{name}")).unwrap_err();
            assert_eq!(error.to_string(), format!("Invalid event type: {name}"));
        }
    }
}
