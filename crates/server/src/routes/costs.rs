//! What embedding costs, and budgets for it.

use arrwdb_engine::state::limits::BUDGET_DOLLARS_MAX;
use arrwdb_engine::state::{BudgetPeriod, Day, LibraryId, Money, UsageKey, Used};
use arrwdb_engine::{BudgetStatus, CostGroup, CostQuery, NewBudget};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::rfc3339;
use super::job_requests::read_library;
use super::seq_header;
use crate::app::App;
use crate::extract::{QueryPairs, WholeBody, query_fault, read_json};
use crate::json::{Read, Reader};
use crate::limits::{COST_PAGE_DEFAULT, COST_PAGE_MAX};
use crate::moment::MinSeq;
use crate::openapi::{ReadErrors, WriteErrors};
use crate::principal::Principal;
use crate::problem::Problem;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(costs)).routes(routes!(set, delete)).routes(routes!(list))
}

/// A budget to set.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"amount_usd": 25.0, "period": "month", "thresholds": [50, 80, 100]}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct BudgetRequest {
    /// The library; all libraries together, if absent.
    #[schema(format = "uuid")]
    library_id: Option<String>,
    /// In US dollars, to a millionth.
    #[schema(minimum = 0.000_001, maximum = 10_000_000)]
    amount_usd: f64,
    /// `day`, `month` (both in UTC) or `total`.
    #[schema(default = "month")]
    period: Option<String>,
    /// Percentages at which `cost.threshold_reached` is told, each once in a period.
    #[schema(min_items = 0, max_items = 10, default = json!([50, 80, 100]))]
    thresholds: Option<Vec<u8>>,
    /// Whether nothing more is paid for once all of it is spent: 402.
    #[schema(default = false)]
    refuse: Option<bool>,
}

/// A budget, and how much of it is spent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BudgetAnswer {
    /// The library; null: all libraries together.
    library_id: Option<String>,
    amount_usd: f64,
    currency: &'static str,
    /// `day`, `month` or `total`.
    period: &'static str,
    /// The first day of the period; null for `total`.
    period_start: Option<String>,
    thresholds: Vec<u8>,
    refuse: bool,
    /// Spent in the period.
    spent_usd: f64,
    remaining_usd: f64,
    /// Spent of it; more than 100 if it was not refused.
    percent: f64,
    /// Whether all of it is spent.
    exceeded: bool,
    /// When the next period begins; null for `total`.
    renews_at: Option<String>,
    #[schema(format = "date-time")]
    set_at: String,
}

/// Every budget.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BudgetList {
    /// That of all libraries together first.
    budgets: Vec<BudgetAnswer>,
    total: usize,
}

/// What was used.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UsedAnswer {
    /// Texts that the provider embedded.
    texts: u64,
    /// Their tokens as the provider counted them.
    tokens: u64,
    cost_usd: f64,
    /// Whether the price of all of it is known (`EMBEDDING_PRICES`).
    priced: bool,
    /// Tokens whose price is not known: they count as free.
    unpriced_tokens: u64,
    /// Texts whose vectors were found in the cache.
    cached_texts: u64,
    /// Their tokens, by estimate.
    cached_tokens: u64,
    /// What embedding those would have cost, by the same estimate.
    saved_usd: f64,
}

/// What was used of one thing that is told apart. What it is not told apart by is absent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CostRow {
    /// In UTC; null for days that are not told apart any longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date")]
    day: Option<Value>,
    /// Null for libraries that are not told apart any longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    library_id: Option<Value>,
    /// Null for what is not told apart any longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    provider: Option<Value>,
    /// Null for what is not told apart any longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    model: Option<Value>,
    #[serde(flatten)]
    used: UsedAnswer,
}

/// What embedding cost.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CostAnswer {
    currency: &'static str,
    /// What the rows are told apart by.
    group_by: Vec<&'static str>,
    total: UsedAnswer,
    rows: Vec<CostRow>,
    /// How many there are on all pages.
    total_rows: usize,
    page: u64,
    page_size: u64,
}

impl BudgetAnswer {
    fn of(budget: &BudgetStatus) -> Self {
        let terms = &budget.terms;
        let (spent, amount) = (budget.spent, terms.amount);
        let percent = spent.dollars() / amount.dollars() * 100.0;
        let start = (budget.since != Day::OLDER).then(|| budget.since.to_string());
        Self {
            library_id: terms.scope.library.map(|library| library.to_string()),
            amount_usd: amount.dollars(),
            currency: "USD",
            period: terms.period.name(),
            period_start: start,
            thresholds: terms.thresholds.clone(),
            refuse: terms.refuse,
            spent_usd: spent.dollars(),
            remaining_usd: amount.minus(spent).dollars(),
            percent: (percent * 100.0).round() / 100.0,
            exceeded: spent >= amount,
            renews_at: budget.renews_at.map(rfc3339),
            set_at: rfc3339(budget.set_at),
        }
    }
}

impl From<Used> for UsedAnswer {
    fn from(used: Used) -> Self {
        Self {
            texts: used.texts,
            tokens: used.tokens,
            cost_usd: used.cost.dollars(),
            priced: used.unpriced_tokens == 0,
            unpriced_tokens: used.unpriced_tokens,
            cached_texts: used.cached_texts,
            cached_tokens: used.cached_tokens,
            saved_usd: used.saved.dollars(),
        }
    }
}

impl CostRow {
    fn of(groups: &[CostGroup], key: &UsageKey, used: Used) -> Self {
        let by = |group| groups.contains(&group);
        let named = |name: &str| if name.is_empty() { Value::Null } else { name.into() };
        let day = if key.day == Day::OLDER { Value::Null } else { key.day.to_string().into() };
        Self {
            day: by(CostGroup::Day).then_some(day),
            library_id: by(CostGroup::Library).then(|| key.library.map(|id| id.to_string()).into()),
            provider: by(CostGroup::Provider).then(|| named(&key.provider)),
            model: by(CostGroup::Model).then(|| named(&key.model)),
            used: used.into(),
        }
    }
}

const GROUPS: [(&str, CostGroup); 4] = [
    ("day", CostGroup::Day),
    ("library", CostGroup::Library),
    ("provider", CostGroup::Provider),
    ("model", CostGroup::Model),
];

/// What embedding cost: what the provider counted, by the prices of `EMBEDDING_PRICES`, and what the
/// cache saved.
#[utoipa::path(get, operation_id = "get_costs", path = "/costs", tag = "costs",
    params(
        ("from" = Option<String>, Query, format = "date", description = "From this day on, in UTC. What is older than `COST_RETENTION_DAYS` is summed up, and counted only where neither from nor to is given"),
        ("to" = Option<String>, Query, format = "date", description = "Up to this day, and with it"),
        ("library_id" = Option<String>, Query, format = "uuid", description = "Of this library"),
        ("group_by" = Option<String>, Query, description = "day, library, provider, model, with commas between; none for the total alone [day]"),
        ("page" = Option<u64>, Query, description = "From 1 [1]"),
        ("page_size" = Option<u64>, Query, description = "1 to 1000 [100]"),
        ("min_seq" = Option<u64>, Query, description = "Wait until this write is seen"),
    ),
    responses((status = 200, description = "What it cost", body = CostAnswer), ReadErrors))]
async fn costs(
    principal: Principal,
    State(app): State<App>,
    MinSeq(min_seq): MinSeq,
    query: QueryPairs,
) -> Result<Response, Problem> {
    let (from, to) = (day(&query, "from")?, day(&query, "to")?);
    if from.is_some() && to.is_some() && from > to {
        return Err(query_fault("to", "must not be before from"));
    }
    let page = query.whole("page", 1, 1..=u64::from(u32::MAX))?;
    let page_size = query.whole("page_size", COST_PAGE_DEFAULT, 1..=COST_PAGE_MAX)?;
    let library = library(&query)?;
    let asked = CostQuery { from, to, library, groups: groups(&query)? };
    let (report, seq) = app.engine().costs(principal.tenant, &asked, min_seq).await?;
    let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let grouped = !asked.groups.is_empty();
    let rows = if grouped { report.rows } else { Vec::new() };
    let shown = rows.iter().skip(whole((page - 1) * page_size)).take(whole(page_size));
    let names = GROUPS.iter().filter(|(_name, group)| asked.groups.contains(group));
    let answer = CostAnswer {
        currency: "USD",
        group_by: names.map(|(name, _group)| *name).collect(),
        total: report.total.into(),
        rows: shown.map(|(key, used)| CostRow::of(&asked.groups, key, *used)).collect(),
        total_rows: rows.len(),
        page,
        page_size,
    };
    Ok((seq_header(seq), Json(answer)).into_response())
}

/// A day of the query string.
fn day(query: &QueryPairs, name: &str) -> Result<Option<Day>, Problem> {
    let Some(text) = query.text(name) else { return Ok(None) };
    let date = text.parse::<jiff::civil::Date>().ok();
    let date = date.filter(|date| date.to_string() == text);
    let wrong = || query_fault(name, "must be a day such as 2026-01-31");
    let midnight = date.ok_or_else(wrong)?.to_zoned(jiff::tz::TimeZone::UTC);
    let micros = midnight.map_err(|_beyond| wrong())?.timestamp().as_microsecond();
    Ok(Some(Day::of(arrwdb_engine::state::Timestamp::from_micros(micros))))
}

/// The library of the query string.
fn library(query: &QueryPairs) -> Result<Option<LibraryId>, Problem> {
    let Some(text) = query.text("library_id") else { return Ok(None) };
    let id = text.parse::<LibraryId>();
    id.map(Some).map_err(|error| query_fault("library_id", &error.to_string()))
}

fn groups(query: &QueryPairs) -> Result<Vec<CostGroup>, Problem> {
    let text = query.text("group_by").unwrap_or("day");
    if text == "none" {
        return Ok(Vec::new());
    }
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let known = |wanted| GROUPS.iter().find(|(name, _group)| *name == wanted);
    let found = names.map(|name| known(name).map(|(_name, group)| *group));
    found.collect::<Option<_>>().ok_or_else(|| {
        query_fault("group_by", "must be none, or some of day, library, provider, model")
    })
}

/// Sets a budget, in the place of the one that there is. What was spent in its period counts, and
/// percentages that are reached are told once: those that are above what is spent of a raised one are
/// told again.
#[utoipa::path(put, operation_id = "set_budget", path = "/costs/budget", tag = "costs",
    request_body = BudgetRequest,
    responses((status = 200, description = "The budget: durable", body = BudgetAnswer), WriteErrors))]
async fn set(
    principal: Principal,
    State(app): State<App>,
    WholeBody(body, _room): WholeBody,
) -> Result<Response, Problem> {
    let new = read_json(&body, new_budget)?;
    let written = app.engine().set_budget(principal.tenant, new).await?;
    Ok((seq_header(written.seq), Json(BudgetAnswer::of(&written.value))).into_response())
}

fn new_budget(r: &mut Reader<'_>) -> Read<NewBudget> {
    let mut new = NewBudget {
        library: None,
        amount: Money::ZERO,
        period: BudgetPeriod::Month,
        thresholds: vec![50, 80, 100],
        refuse: false,
    };
    let mut given = false;
    r.object(|r, key| {
        match key {
            "library_id" => new.library = read_library(r)?,
            "amount_usd" => {
                if let Some(dollars) = r.number()? {
                    given = true;
                    new.amount = amount(r, dollars);
                }
            }
            "period" => {
                if let Some(name) = r.string()? {
                    match BudgetPeriod::from_name(&name) {
                        Some(period) => new.period = period,
                        None => r.fault("must be day, month or total"),
                    }
                }
            }
            "thresholds" => {
                if let Some(thresholds) = thresholds(r)? {
                    new.thresholds = thresholds;
                }
            }
            "refuse" => new.refuse = r.switch()?.unwrap_or(false),
            _other => {}
        }
        Ok(())
    })?;
    let told = r.has_fault_at("amount_usd");
    r.require("amount_usd", given || told);
    Ok(new)
}

fn amount(r: &mut Reader<'_>, dollars: f64) -> Money {
    let micros = (dollars * 1e6).round();
    #[expect(clippy::cast_precision_loss, reason = "the bound is far below 2^53")]
    let max = (BUDGET_DOLLARS_MAX * 1_000_000) as f64;
    if !(1.0..=max).contains(&micros) {
        r.fault(format!("must be from 0.000001 to {BUDGET_DOLLARS_MAX}"));
        return Money::ZERO;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within")]
    let micros = micros as u64;
    Money::from_micros(micros)
}

fn thresholds(r: &mut Reader<'_>) -> Read<Option<Vec<u8>>> {
    let mut percents = Vec::new();
    let faults = r.fault_count();
    let found = r.array(|r, _index| {
        if let Some(number) = r.whole()? {
            match u8::try_from(number).ok().filter(|percent| (1..=100).contains(percent)) {
                Some(percent) => percents.push(percent),
                None => r.fault("must be a whole number from 1 to 100"),
            }
        }
        Ok(())
    })?;
    if found.is_none() || r.fault_count() > faults {
        return Ok(None);
    }
    if let Some(fault) = arrwdb_engine::state::BudgetTerms::threshold_fault(&percents) {
        r.fault(fault);
    }
    Ok(Some(percents))
}

/// Every budget, with what is spent of it.
#[utoipa::path(get, operation_id = "list_budgets", path = "/costs/budgets", tag = "costs",
    params(("min_seq" = Option<u64>, Query, description = "Wait until this write is seen")),
    responses((status = 200, description = "The budgets", body = BudgetList), ReadErrors))]
async fn list(
    principal: Principal,
    State(app): State<App>,
    MinSeq(min_seq): MinSeq,
) -> Result<Response, Problem> {
    let (budgets, seq) = app.engine().budgets(principal.tenant, min_seq).await?;
    let budgets: Vec<_> = budgets.iter().map(BudgetAnswer::of).collect();
    let total = budgets.len();
    Ok((seq_header(seq), Json(BudgetList { budgets, total })).into_response())
}

/// Deletes a budget.
#[utoipa::path(delete, operation_id = "delete_budget", path = "/costs/budget", tag = "costs",
    params(("library_id" = Option<String>, Query, format = "uuid", description = "That of this library; that of all libraries together, if absent")),
    responses((status = 204, description = "Deleted: durable"), WriteErrors))]
async fn delete(
    principal: Principal,
    State(app): State<App>,
    query: QueryPairs,
) -> Result<Response, Problem> {
    let written = app.engine().delete_budget(principal.tenant, library(&query)?).await?;
    Ok((StatusCode::NO_CONTENT, seq_header(written.seq)).into_response())
}
