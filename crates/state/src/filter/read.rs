//! Filters from JSON.

use std::sync::Arc;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::passage::READ_FIELDS;
use super::value::Operand;
use super::{Filter, FilterFault, Node, Parsed, Side, Test, words};
use crate::limits::{
    FILTER_CONDITIONS_MAX, FILTER_DEPTH_MAX, FILTER_KEY_CHARS_MAX, FILTER_VALUE_CHARS_MAX,
    FILTER_VALUES_MAX,
};

type Read<T> = Result<T, FilterFault>;

const OPERATORS: &str = "$eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists, $contains, \
                         $not_contains, $prefix, $text or $not";
const LIST_OPERATORS: &str = "eq, ne, gt, gte, lt, lte, in, nin, exists, contains, not_contains, \
                              prefix or text";
const SCALAR: &str = "must be a text, a number, true, false or null";

impl Filter {
    /// Reads a filter in one of these shapes:
    ///
    /// - an object of fields, all of which have to hold: `{"year": 1998, "tags": "a"}` for equality,
    ///   `{"year": {"$gte": 1998, "$lt": 2000}}` for other tests, `{"$and": [..]}`, `{"$or": [..]}`
    ///   and `{"$not": {..}}` for filters of filters;
    /// - a list of `{"field": .., "operator": .., "value": ..}`, all of which have to hold. Here no
    ///   operator holds of a field that is missing, `ne` included.
    ///
    /// An empty object or list lets everything pass. O(size).
    pub fn read(source: Value) -> Read<Self> {
        Self::read_as(source, false)
    }

    /// Reads a filter that was recorded: earlier versions took a condition of a list without a value
    /// for one of null.
    pub fn read_recorded(source: Value) -> Read<Self> {
        Self::read_as(source, true)
    }

    fn read_as(source: Value, recorded: bool) -> Read<Self> {
        let mut reader = Reader { pointer: String::new(), conditions: 0, values: 0, recorded };
        let root = match &source {
            Value::Object(object) => reader.object(object, 1)?,
            Value::Array(list) => reader.list(list)?,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                return Err(reader.fault(
                    "must be an object of fields, such as {\"year\": {\"$gte\": 1998}}, or a list \
                     of {\"field\", \"operator\", \"value\"}",
                ));
            }
        };
        let conditions = reader.conditions;
        if conditions == 0 && matches!(&root, Node::All(nodes) if nodes.is_empty()) {
            return Ok(Self::default());
        }
        let source_bytes = source.to_string().len();
        Ok(Self(Some(Arc::new(Parsed { root, source, source_bytes, conditions }))))
    }
}

struct Reader {
    pointer: String,
    conditions: usize,
    values: usize,
    /// Whether it was taken before.
    recorded: bool,
}

impl Reader {
    fn fault(&self, detail: impl Into<String>) -> FilterFault {
        FilterFault { pointer: self.pointer.clone(), detail: detail.into() }
    }

    /// Reads what is at `key` of here.
    fn at<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        let before = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
        // With an error the pointer is done with.
        let read = read(self)?;
        self.pointer.truncate(before);
        Ok(read)
    }

    fn deeper(&self, depth: usize) -> Read<usize> {
        if depth >= FILTER_DEPTH_MAX {
            let detail =
                format!("is nested deeper than {FILTER_DEPTH_MAX} levels, which is the limit");
            return Err(self.fault(detail));
        }
        Ok(depth + 1)
    }

    /// All members of an object.
    fn object(&mut self, object: &Map<String, Value>, depth: usize) -> Read<Node> {
        let mut all = Vec::new();
        for (key, value) in object {
            all.push(self.at(key, |reader| match key.as_str() {
                "$and" => reader.filters(value, depth).map(Node::All),
                "$or" => reader.filters(value, depth).map(Node::Any),
                "$not" => Ok(Node::Not(Box::new(reader.inner(value, depth)?))),
                key if key.starts_with('$') => {
                    Err(reader.fault("is no operator of filters; use $and, $or or $not"))
                }
                field => reader.field(field, value, depth),
            })?);
        }
        Ok(one_or_all(all))
    }

    /// A filter within one.
    fn inner(&mut self, value: &Value, depth: usize) -> Read<Node> {
        let depth = self.deeper(depth)?;
        let object = value.as_object().filter(|object| !object.is_empty());
        let fault = || self.fault("must be a filter: an object with a field or more");
        let object = object.ok_or_else(fault)?;
        self.object(object, depth)
    }

    fn filters(&mut self, value: &Value, depth: usize) -> Read<Vec<Node>> {
        let list = value.as_array().filter(|list| !list.is_empty());
        let list = list.ok_or_else(|| self.fault("must be a list of one filter or more"))?;
        let filters = list.iter().enumerate();
        filters.map(|(n, it)| self.at(&n.to_string(), |reader| reader.inner(it, depth))).collect()
    }

    /// What is said of a field.
    fn field(&mut self, name: &str, value: &Value, depth: usize) -> Read<Node> {
        self.check_name(name)?;
        let Value::Object(tests) = value else {
            if value.is_array() {
                let detail = "must be one value; use {\"$in\": [..]} for one of several";
                return Err(self.fault(detail));
            }
            let operand = self.operand(name, value)?;
            self.count()?;
            return Ok(Node::Field(name.into(), Test::OneOf(vec![operand])));
        };
        if tests.is_empty() {
            return Err(self.fault(format!("must have an operator: {OPERATORS}")));
        }
        let mut all = Vec::new();
        for (operator, value) in tests {
            all.push(self.at(operator, |reader| {
                let Some(operator) = operator.strip_prefix('$') else {
                    return Err(reader.fault(format!(
                        "is no operator ({OPERATORS}); a field of an object is named by its path, \
                         such as \"author.name\""
                    )));
                };
                if operator == "not" {
                    let depth = reader.deeper(depth)?;
                    if !value.is_object() {
                        return Err(reader.fault("must be an object of operators"));
                    }
                    return Ok(Node::Not(Box::new(reader.field(name, value, depth)?)));
                }
                let test = reader.test(name, operator, value)?;
                test.ok_or_else(|| reader.fault(format!("is no operator; use {OPERATORS}")))
            })?);
        }
        Ok(one_or_all(all))
    }

    /// The list form.
    fn list(&mut self, list: &[Value]) -> Read<Node> {
        let each = list.iter().enumerate();
        let all = each.map(|(n, it)| self.at(&n.to_string(), |reader| reader.listed(it)));
        Ok(one_or_all(all.collect::<Read<_>>()?))
    }

    fn listed(&mut self, value: &Value) -> Read<Node> {
        let Value::Object(object) = value else {
            return Err(self.fault("must be an object of \"field\", \"operator\" and \"value\""));
        };
        for key in object.keys() {
            if !["field", "operator", "value"].contains(&key.as_str()) {
                return self.at(key, |reader| {
                    Err(reader.fault("is not known here; use field, operator and value"))
                });
            }
        }
        let text = |reader: &mut Self, key: &str| {
            let text = object.get(key).and_then(Value::as_str).map(str::to_owned);
            reader.at(key, |reader| text.ok_or_else(|| reader.fault("must be a text")))
        };
        let name = text(self, "field")?;
        self.at("field", |reader| reader.check_name(&name))?;
        let operator = text(self, "operator")?;
        let value = match object.get("value") {
            Some(value) => value,
            None if self.recorded => &Value::Null,
            None => {
                let what = "is required; null is a value";
                return self.at("value", |reader| Err(reader.fault(what)));
            }
        };
        let test = self.at("value", |reader| reader.test(&name, &operator, value))?;
        let Some(test) = test else {
            return self.at("operator", |reader| {
                Err(reader.fault(format!("is no operator; use {LIST_OPERATORS}")))
            });
        };
        // `{"operator": "exists", "value": false}` is about what is missing.
        if operator == "exists" {
            return Ok(test);
        }
        Ok(Node::All(vec![Node::Field(name.into(), Test::Exists), test]))
    }

    /// A test by its name; `None` if there is none of this name.
    fn test(&mut self, name: &str, operator: &str, value: &Value) -> Read<Option<Node>> {
        let is = |test| Node::Field(name.into(), test);
        let is_not = |test| Node::Not(Box::new(is(test)));
        let node = match operator {
            "eq" => is(Test::OneOf(vec![self.operand(name, value)?])),
            "ne" => is_not(Test::OneOf(vec![self.operand(name, value)?])),
            "in" => is(Test::OneOf(self.operands(name, value)?)),
            "nin" => is_not(Test::OneOf(self.operands(name, value)?)),
            "gt" => is(Test::Compare(Side::Greater, self.ordered(name, value)?)),
            "gte" => is(Test::Compare(Side::GreaterOrEqual, self.ordered(name, value)?)),
            "lt" => is(Test::Compare(Side::Less, self.ordered(name, value)?)),
            "lte" => is(Test::Compare(Side::LessOrEqual, self.ordered(name, value)?)),
            "exists" => match value.as_bool() {
                Some(true) => is(Test::Exists),
                Some(false) => is_not(Test::Exists),
                None => return Err(self.fault("must be true or false")),
            },
            "contains" => is(Test::Contains(self.operand(name, value)?)),
            "not_contains" => is_not(Test::Contains(self.operand(name, value)?)),
            "prefix" => is(Test::Prefix(self.text(value)?.into())),
            "text" => is(Test::Words(self.words(value)?)),
            _unknown => return Ok(None),
        };
        self.count()?;
        Ok(Some(node))
    }

    fn operand(&mut self, name: &str, value: &Value) -> Read<Operand> {
        let operand = Operand::of(value).ok_or_else(|| self.fault(SCALAR))?;
        if let Operand::Text(text, _) = &operand {
            self.check_text(text)?;
            // Ids are the same however they are spelled.
            if READ_FIELDS.contains(&name)
                && name != "text"
                && let Ok(id) = Uuid::try_parse(text)
            {
                return Ok(Operand::Text(id.as_hyphenated().to_string().into(), None));
            }
        }
        Ok(operand)
    }

    /// What has an order.
    fn ordered(&mut self, name: &str, value: &Value) -> Read<Operand> {
        let operand = self.operand(name, value)?;
        if operand == Operand::Null {
            return Err(self.fault("must be a text, a number or a date to be compared with"));
        }
        Ok(operand)
    }

    fn operands(&mut self, name: &str, value: &Value) -> Read<Vec<Operand>> {
        let list = value.as_array().ok_or_else(|| self.fault("must be a list of values"))?;
        self.values += list.len();
        if self.values > FILTER_VALUES_MAX {
            let detail =
                format!("makes {} values in lists; the limit is {FILTER_VALUES_MAX}", self.values);
            return Err(self.fault(detail));
        }
        let each = list.iter().enumerate();
        each.map(|(n, it)| self.at(&n.to_string(), |reader| reader.operand(name, it))).collect()
    }

    fn text<'v>(&self, value: &'v Value) -> Read<&'v str> {
        let text = value.as_str().filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| self.fault("must be a text that is not empty"))?;
        self.check_text(text)?;
        Ok(text)
    }

    fn words(&self, value: &Value) -> Read<Vec<Box<str>>> {
        let mut words: Vec<Box<str>> = words(self.text(value)?).map(Into::into).collect();
        words.sort_unstable();
        words.dedup();
        if words.is_empty() {
            return Err(self.fault("must have a word; there are only signs in it"));
        }
        Ok(words)
    }

    fn check_text(&self, text: &str) -> Read<()> {
        let chars = text.chars().count();
        if chars > FILTER_VALUE_CHARS_MAX {
            let detail = format!("has {chars} characters; the limit is {FILTER_VALUE_CHARS_MAX}");
            return Err(self.fault(detail));
        }
        Ok(())
    }

    fn check_name(&self, name: &str) -> Read<()> {
        let chars = name.chars().count();
        if (1..=FILTER_KEY_CHARS_MAX).contains(&chars) {
            return Ok(());
        }
        let detail = format!(
            "is the name of a field with {chars} characters; it must have 1 to \
             {FILTER_KEY_CHARS_MAX}"
        );
        Err(self.fault(detail))
    }

    /// One condition more.
    fn count(&mut self) -> Read<()> {
        self.conditions += 1;
        if self.conditions > FILTER_CONDITIONS_MAX {
            let detail =
                format!("has more than {FILTER_CONDITIONS_MAX} conditions, which is the limit");
            return Err(FilterFault { pointer: String::new(), detail });
        }
        Ok(())
    }
}

fn one_or_all(mut nodes: Vec<Node>) -> Node {
    match nodes.pop() {
        Some(only) if nodes.is_empty() => only,
        Some(last) => {
            nodes.push(last);
            Node::All(nodes)
        }
        None => Node::All(nodes),
    }
}
