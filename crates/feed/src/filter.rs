//! Which events one who follows the feed is shown.

use arrwdb_engine::state::{LibraryId, TenantId};

use crate::event::{Changes, Event};
use crate::event_type::EventTypes;

/// Which events one who follows the feed is shown: those that pass everything here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Whose events. Nobody sees another's.
    pub tenant: TenantId,
    /// Of this library, if of one only.
    pub library: Option<LibraryId>,
    /// Of these types.
    pub types: EventTypes,
    /// Whose payload has all these members with these values, written as text.
    pub members: Vec<(String, String)>,
}

impl Filter {
    /// All usual events of a tenant.
    pub fn of(tenant: TenantId) -> Self {
        Self { tenant, library: None, types: EventTypes::usual(), members: Vec::new() }
    }

    /// Whether some of a record's events may pass.
    pub(crate) fn may_pass(&self, changes: &Changes) -> bool {
        changes.tenant == self.tenant
            && self.library.is_none_or(|library| changes.library == Some(library))
            && self.types.meets(changes.types)
    }

    /// Whether an event passes that may.
    pub(crate) fn passes(&self, event: Event<'_>) -> bool {
        self.types.contains(event.event_type())
            && self.members.iter().all(|(name, wanted)| {
                let library = event.library().map(|library| library.to_string());
                let mut equal = name == "library_id" && library.as_ref() == Some(wanted);
                event.data().visit(&mut |member, value| {
                    equal |= member == name && value.is(wanted);
                });
                equal
            })
    }
}
