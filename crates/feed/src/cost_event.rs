//! What events say of budgets.

use std::sync::Arc;

use arrwdb_engine::state::{BudgetCrossed, BudgetPeriod, Day, WorkEntry};

use crate::event::Value;
use crate::event_type::EventType;

/// Spending reached a percentage of a budget, or all of it.
#[derive(Debug, Clone, PartialEq)]
pub struct CostData {
    /// The budget, and what was spent of it.
    pub crossed: Arc<BudgetCrossed>,
    /// The percentage; that all is spent, if none.
    pub percent: Option<u8>,
}

impl CostData {
    /// What an entry says of a budget, in the order in which it is told; nothing if it is about
    /// none.
    pub(crate) fn of(entry: &WorkEntry) -> Vec<Self> {
        let WorkEntry::BudgetCrossed(crossed) = entry else { return Vec::new() };
        let crossed = Arc::new(crossed.clone());
        let exceeded = crossed.exceeded.then_some(None);
        let told = crossed.percents.iter().copied().map(Some).chain(exceeded);
        told.map(|percent| Self { crossed: crossed.clone(), percent }).collect()
    }

    pub(crate) fn event_type(&self) -> EventType {
        match self.percent {
            Some(_) => EventType::CostThresholdReached,
            None => EventType::CostBudgetExceeded,
        }
    }

    pub(crate) fn text_bytes() -> usize {
        size_of::<BudgetCrossed>() + 32
    }

    pub(crate) fn visit(&self, see: &mut dyn FnMut(&'static str, Value<'_>)) {
        let BudgetCrossed { terms, since, spent, .. } = &*self.crossed;
        let scope = if terms.scope.library.is_some() { "library" } else { "tenant" };
        see("scope", Value::Text(scope));
        see("period", Value::Text(terms.period.name()));
        let start = (terms.period != BudgetPeriod::Total).then_some(*since);
        match &start {
            Some(day) => see("period_start", Value::Id(day)),
            None => see("period_start", Value::Null),
        }
        see("percent", Value::Number(self.percent.map_or(100, u64::from)));
        see("amount_usd", Value::Real(terms.amount.dollars()));
        see("spent_usd", Value::Real(spent.dollars()));
        see("currency", Value::Text("USD"));
        see("refuse", if terms.refuse { Value::Json("true") } else { Value::Json("false") });
        let renews = terms.period.end(start.unwrap_or(Day::OLDER));
        see("renews_at", renews.map_or(Value::Null, Value::Time));
    }
}
