//! Identities, positions and times: the newtypes everything else is named by.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// Why a text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}: {expected}")]
pub struct ParseIdError {
    /// What was expected: `library id`, `document id`, ...
    pub kind: &'static str,
    /// What was given, cut to 64 characters.
    pub text: String,
    /// The accepted form.
    pub expected: &'static str,
}

impl ParseIdError {
    fn new(kind: &'static str, text: &str, expected: &'static str) -> Self {
        Self { kind, text: text.chars().take(64).collect(), expected }
    }
}

macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID of any version; every value is valid.
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The id of these 16 bytes, in the order in which UUIDs are written.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The 16 bytes, in the order in which UUIDs are written.
            pub const fn to_bytes(self) -> [u8; 16] {
                *self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.as_hyphenated())
            }
        }

        /// Accepts upper case, no hyphens, braces and `urn:uuid:`, as RFC 9562 readers do.
        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                Uuid::try_parse(text).map(Self).map_err(|_not_a_uuid| {
                    ParseIdError::new($kind, text, "a UUID of 32 hexadecimal digits")
                })
            }
        }
    };
}

uuid_newtype! {
    /// A library.
    LibraryId, "library id"
}
uuid_newtype! {
    /// A document of one library. The same id may exist in two libraries.
    DocumentId, "document id"
}
uuid_newtype! {
    /// A chunk of one document.
    ChunkId, "chunk id"
}

uuid_newtype! {
    /// A standing query of one library.
    QueryId, "standing query id"
}
uuid_newtype! {
    /// A job.
    JobId, "job id"
}
uuid_newtype! {
    /// A webhook.
    WebhookId, "webhook id"
}
uuid_newtype! {
    /// A schedule of jobs.
    ScheduleId, "schedule id"
}

/// The version that the ids of companions have; those that the server makes have version 7.
const COMPANION_VERSION: u8 = 0x80;

impl LibraryId {
    /// The id of the library that holds this one's standing queries: the same but for its version,
    /// so that a stream of the log says what it is of when neither library is there any more.
    #[must_use]
    pub const fn companion(self) -> Self {
        let mut bytes = self.to_bytes();
        bytes[6] = bytes[6] & 0x0f | COMPANION_VERSION;
        Self::from_bytes(bytes)
    }

    /// Whether it is the id of a companion.
    pub const fn is_companion(self) -> bool {
        self.to_bytes()[6] & 0xf0 == COMPANION_VERSION
    }
}

impl QueryId {
    /// As the id of the document that holds the query.
    pub const fn document(self) -> DocumentId {
        DocumentId::from_bytes(self.to_bytes())
    }
}

impl From<DocumentId> for QueryId {
    fn from(id: DocumentId) -> Self {
        Self::from_bytes(id.to_bytes())
    }
}

/// A tenant, written `tenant_` and 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(u64);

impl TenantId {
    /// The one tenant there is until keys are configured.
    pub const DEFAULT: Self = Self(0);

    /// The tenant of this number; every value is valid.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number behind the name.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenant_{:016x}", self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantId({self})")
    }
}

impl FromStr for TenantId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        text.strip_prefix("tenant_")
            .filter(|digits| digits.len() == 16)
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .map(Self)
            .ok_or_else(|| {
                ParseIdError::new("tenant id", text, "tenant_ and 16 hexadecimal digits")
            })
    }
}

/// A position in the log: numbers increase strictly and may have gaps, so ask for "after n",
/// never for "n + 1".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Seq(u64);

impl Seq {
    /// Before the first record.
    pub const START: Self = Self(0);

    /// The position of this number; every value is valid.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, as the log counts.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Microseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(i64);

impl Timestamp {
    /// This many microseconds after the epoch; negative is before it.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds after the epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_accept_every_usual_spelling_and_print_one() {
        let canonical = "0191f4a2-7c3e-7abc-8def-0123456789ab";
        for text in [
            canonical,
            "0191F4A2-7C3E-7ABC-8DEF-0123456789AB",
            "0191f4a27c3e7abc8def0123456789ab",
            "urn:uuid:0191f4a2-7c3e-7abc-8def-0123456789ab",
        ] {
            assert_eq!(text.parse::<LibraryId>().unwrap().to_string(), canonical);
        }
        for text in ["", "0191", "g191f4a2-7c3e-7abc-8def-0123456789ab"] {
            assert!(text.parse::<DocumentId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_tenant_prints_as_it_parses() {
        let tenant: TenantId = "tenant_00000000000000ff".parse().unwrap();
        assert_eq!(tenant, TenantId::new(255));
        assert_eq!(tenant.to_string(), "tenant_00000000000000ff");
        assert!("tenant_ff".parse::<TenantId>().is_err());
    }
}
