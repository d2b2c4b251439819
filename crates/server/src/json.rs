//! One pass over a request body that notes every fault instead of stopping at the first.
//!
//! A [`Reader`] pulls values out of the text in the order in which they stand. A value of the
//! wrong type or out of range is noted with its JSON Pointer (RFC 6901) and skipped; only text that
//! is not JSON ends the reading. `null` for an optional field means that the field is absent.

use std::collections::HashSet;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::embedding::{self, VectorError};
use crate::limits::FAULTS_MAX;

/// One field that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// JSON Pointer of the field.
    pub(crate) pointer: String,
    /// What is wrong, and the limit.
    pub(crate) detail: String,
    /// What kind of rule.
    pub(crate) rule: Rule,
}

/// Kinds of rules: they differ in the status of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Type, range or presence of a field.
    Shape,
    /// A vector whose numbers are not finite.
    Vector,
}

/// Text that is not JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// Where, in bytes.
    pub(crate) offset: usize,
    /// What is wrong.
    pub(crate) detail: String,
}

/// Reads one JSON text.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    path: Vec<Step>,
    faults: Vec<Fault>,
}

#[derive(Debug)]
enum Step {
    Key(String),
    Index(usize),
}

/// The outcome of a step of reading: text that is not JSON ends it.
pub(crate) type Read<T> = Result<T, SyntaxError>;

impl<'a> Reader<'a> {
    /// A reader of `body`; a byte order mark is skipped.
    pub(crate) fn new(body: &'a [u8]) -> Read<Self> {
        let text = std::str::from_utf8(body).map_err(|error| SyntaxError {
            offset: error.valid_up_to(),
            detail: "the text is not UTF-8".to_owned(),
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Ok(Self { text, at: 0, path: Vec::new(), faults: Vec::new() })
    }

    /// The faults noted, once nothing but white space follows.
    pub(crate) fn finish(mut self) -> Read<Vec<Fault>> {
        self.skip_space();
        if self.at < self.text.len() {
            return Err(self.syntax("something follows the JSON value"));
        }
        Ok(self.faults)
    }

    /// Notes a fault of the value being read.
    pub(crate) fn fault(&mut self, detail: impl Into<String>) {
        let pointer = self.pointer();
        self.note(pointer, detail.into(), Rule::Shape);
    }

    /// Notes a fault of the field `name` of the object being read.
    pub(crate) fn fault_at(&mut self, name: &str, detail: impl Into<String>) {
        let mut pointer = self.pointer();
        push_token(&mut pointer, name);
        self.note(pointer, detail.into(), Rule::Shape);
    }

    /// Notes a fault of the field `name` of the object in the field `parent` of the one being read.
    pub(crate) fn fault_within(&mut self, parent: &str, name: &str, detail: impl Into<String>) {
        let mut pointer = self.pointer();
        push_token(&mut pointer, parent);
        push_token(&mut pointer, name);
        self.note(pointer, detail.into(), Rule::Shape);
    }

    /// Notes a fault of what is at `pointer` in the value being read.
    pub(crate) fn fault_beneath(&mut self, pointer: &str, detail: impl Into<String>) {
        let pointer = self.pointer() + pointer;
        self.note(pointer, detail.into(), Rule::Shape);
    }

    /// Notes that the field `name` is required if `present` is false.
    pub(crate) fn require(&mut self, name: &str, present: bool) {
        if !present {
            self.fault_at(name, "is required");
        }
    }

    /// Whether a fault of the field `name` of the object being read, or below it, is noted.
    pub(crate) fn has_fault_at(&self, name: &str) -> bool {
        let mut pointer = self.pointer();
        push_token(&mut pointer, name);
        self.has_fault_below(&pointer)
    }

    /// Whether a fault of the value being read, or below it, is noted.
    pub(crate) fn has_own_fault(&self) -> bool {
        self.has_fault_below(&self.pointer())
    }

    fn has_fault_below(&self, pointer: &str) -> bool {
        let below = |fault: &Fault| {
            fault
                .pointer
                .strip_prefix(pointer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        // At the bound, faults are no longer noted and any may have been lost.
        self.faults.len() == FAULTS_MAX || self.faults.iter().any(below)
    }

    /// How many faults are noted.
    pub(crate) fn fault_count(&self) -> usize {
        self.faults.len()
    }

    /// Takes back the faults noted since there were `count`, if all of them are of vectors.
    pub(crate) fn take_vector_faults(&mut self, count: usize) -> Vec<Fault> {
        let mut since = self.faults.iter().skip(count).peekable();
        if since.peek().is_some() && since.all(|fault| fault.rule == Rule::Vector) {
            self.faults.split_off(count)
        } else {
            Vec::new()
        }
    }

    fn note(&mut self, pointer: String, detail: String, rule: Rule) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault { pointer, detail, rule });
        }
    }

    fn pointer(&self) -> String {
        let mut pointer = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) => push_token(&mut pointer, key),
                Step::Index(index) => push_token(&mut pointer, &index.to_string()),
            }
        }
        pointer
    }

    /// Reads an object: `field` is called for every key and may read the value; what it leaves is
    /// skipped. A key that was there before is a fault, since readers differ in which of its values
    /// they take. `None` if there is `null` or something else.
    pub(crate) fn object(
        &mut self,
        mut field: impl FnMut(&mut Self, &str) -> Read<()>,
    ) -> Read<Option<()>> {
        if !self.begins(b'{', "an object")? {
            return Ok(None);
        }
        self.at += 1;
        let mut first = true;
        let mut seen = HashSet::new();
        while self.more(b'}', &mut first)? {
            let key: String = self.parse("a key in double quotes is needed")?;
            self.skip_space();
            if self.byte() != Some(b':') {
                return Err(self.syntax("a colon is needed"));
            }
            self.at += 1;
            self.skip_space();
            let start = self.at;
            self.path.push(Step::Key(key.clone()));
            if seen.contains(&key) {
                self.fault("is given twice");
            } else {
                field(self, &key)?;
            }
            if self.at == start {
                self.raw()?;
            }
            self.path.pop();
            seen.insert(key);
        }
        Ok(Some(()))
    }

    /// Reads an array: `element` is called for every element with its index and may read it; what
    /// it leaves is skipped. An element that is `null` is a fault.
    pub(crate) fn array(
        &mut self,
        mut element: impl FnMut(&mut Self, usize) -> Read<()>,
    ) -> Read<Option<()>> {
        if !self.begins(b'[', "an array")? {
            return Ok(None);
        }
        self.at += 1;
        let mut first = true;
        let mut index = 0;
        while self.more(b']', &mut first)? {
            self.skip_space();
            let start = self.at;
            self.path.push(Step::Index(index));
            if self.byte() == Some(b'n') {
                self.fault("must not be null");
            } else {
                element(self, index)?;
            }
            if self.at == start {
                self.raw()?;
            }
            self.path.pop();
            index += 1;
        }
        Ok(Some(()))
    }

    /// A string.
    pub(crate) fn string(&mut self) -> Read<Option<String>> {
        if !self.begins(b'"', "a string")? {
            return Ok(None);
        }
        self.value()
    }

    /// A whole number from 0 on; `10.0` is taken for `10`.
    pub(crate) fn whole(&mut self) -> Read<Option<u64>> {
        let Some(text) = self.number_text("a whole number")? else { return Ok(None) };
        let whole = text.parse::<u64>().ok().or_else(|| {
            let value: f64 = text.parse().ok()?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the range is checked, and 2^53 bounds what f64 counts exactly"
            )]
            ((0.0..9e15).contains(&value) && value.fract() == 0.0).then_some(value as u64)
        });
        if whole.is_none() {
            self.fault("must be a whole number, not negative");
        }
        Ok(whole)
    }

    /// A whole number from 0 on, or `true` for 1 and `false` for 0.
    pub(crate) fn setting(&mut self) -> Read<Option<u64>> {
        self.skip_space();
        if matches!(self.byte(), Some(b't' | b'f')) {
            return Ok(self.switch()?.map(u64::from));
        }
        self.whole()
    }

    /// A number; always finite.
    pub(crate) fn number(&mut self) -> Read<Option<f64>> {
        let Some(text) = self.number_text("a number")? else { return Ok(None) };
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
        if number.is_none() {
            self.fault("is out of the range of numbers");
        }
        Ok(number)
    }

    /// An array of numbers, of at most `length_max`. Numbers that are not finite are a fault of
    /// their own kind.
    pub(crate) fn vector(&mut self, length_max: usize) -> Read<Option<Vec<f32>>> {
        if !self.begins(b'[', "an array of numbers")? {
            return Ok(None);
        }
        match embedding::parse(&self.text.as_bytes()[self.at..], length_max) {
            Ok(parsed) => {
                self.at += parsed.bytes;
                if let Some(index) = parsed.not_finite {
                    let mut pointer = self.pointer();
                    push_token(&mut pointer, &index.to_string());
                    let detail = format!("element {index} is not a finite number");
                    self.note(pointer, detail, Rule::Vector);
                }
                Ok(Some(parsed.values))
            }
            Err(VectorError::Syntax(offset)) => {
                self.at += offset;
                Err(self.syntax("an array of numbers is broken"))
            }
            Err(VectorError::NotANumber(index)) => {
                self.path.push(Step::Index(index));
                self.fault("must be a number");
                self.path.pop();
                self.raw()?;
                Ok(None)
            }
            Err(VectorError::TooLong) => {
                self.fault(format!("must have at most {length_max} numbers"));
                self.raw()?;
                Ok(None)
            }
        }
    }

    /// `true` or `false`.
    pub(crate) fn switch(&mut self) -> Read<Option<bool>> {
        self.skip_space();
        match self.byte() {
            Some(b't' | b'f') => self.value(),
            Some(b'n') => self.raw().map(|_null| None),
            Some(_) => {
                self.fault("must be true or false");
                self.raw().map(|_other| None)
            }
            None => Err(self.syntax("the text ends too early")),
        }
    }

    /// Whether a `null` follows, which is read.
    pub(crate) fn null(&mut self) -> Read<bool> {
        self.skip_space();
        let null = self.byte() == Some(b'n');
        if null {
            self.raw()?;
        }
        Ok(null)
    }

    /// Any value, `null` too; `null` in the place of one that cannot be held, which is noted.
    pub(crate) fn any(&mut self) -> Read<Value> {
        Ok(self.value()?.unwrap_or(Value::Null))
    }

    /// An object as it stands; `None` for `null` or something else.
    pub(crate) fn any_object(&mut self) -> Read<Option<serde_json::Map<String, Value>>> {
        if !self.begins(b'{', "an object")? {
            return Ok(None);
        }
        self.value()
    }

    /// The text of an object as it stands; `None` for `null` or something else.
    pub(crate) fn object_text(&mut self) -> Read<Option<&'a str>> {
        if self.begins(b'{', "an object")? { self.raw().map(Some) } else { Ok(None) }
    }

    /// Whether a value of the kind that begins with `byte` follows. `null` is skipped; another
    /// kind is noted and skipped.
    fn begins(&mut self, byte: u8, kind: &str) -> Read<bool> {
        self.skip_space();
        match self.byte() {
            Some(found) if found == byte => Ok(true),
            Some(b'n') => self.raw().map(|_null| false),
            Some(_) => {
                self.fault(format!("must be {kind}"));
                self.raw().map(|_other| false)
            }
            None => Err(self.syntax("the text ends too early")),
        }
    }

    fn number_text(&mut self, kind: &str) -> Read<Option<&'a str>> {
        self.skip_space();
        match self.byte() {
            Some(b'-' | b'0'..=b'9') => self.raw().map(Some),
            Some(b'n') => self.raw().map(|_null| None),
            Some(_) => {
                self.fault(format!("must be {kind}"));
                self.raw().map(|_other| None)
            }
            None => Err(self.syntax("the text ends too early")),
        }
    }

    /// Moves to the next element; false at the closing bracket, which is consumed.
    fn more(&mut self, close: u8, first: &mut bool) -> Read<bool> {
        self.skip_space();
        let was_first = std::mem::replace(first, false);
        match self.byte() {
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            Some(_) if was_first => Ok(true),
            Some(b',') => {
                self.at += 1;
                self.skip_space();
                if self.byte() == Some(close) {
                    return Err(self.syntax("a value is needed after the comma"));
                }
                Ok(true)
            }
            Some(_) => Err(self.syntax("a comma or the closing bracket is needed")),
            None => Err(self.syntax("the text ends too early")),
        }
    }

    fn raw(&mut self) -> Read<&'a str> {
        let raw: &'a RawValue = self.parse("a value is needed")?;
        Ok(raw.get())
    }

    /// A value of this type. JSON that cannot be held as one, such as a lone surrogate or a number
    /// beyond f64, is noted and skipped.
    fn value<T: serde::Deserialize<'a>>(&mut self) -> Read<Option<T>> {
        let rest: &'a str = &self.text[self.at..];
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<T>();
        let reason = match stream.next() {
            Some(Ok(value)) => {
                self.at += stream.byte_offset();
                return Ok(Some(value));
            }
            Some(Err(error)) => error.to_string(),
            None => String::new(),
        };
        // No JSON at all ends the reading here.
        self.raw()?;
        match reason.split(" at line ").next() {
            Some("recursion limit exceeded") => self.fault("is nested too deeply"),
            reason => self.fault(format!("cannot be read: {}", reason.unwrap_or_default())),
        }
        Ok(None)
    }

    fn parse<T: serde::Deserialize<'a>>(&mut self, otherwise: &str) -> Read<T> {
        let rest: &'a str = &self.text[self.at..];
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<T>();
        match stream.next() {
            Some(Ok(value)) => {
                self.at += stream.byte_offset();
                Ok(value)
            }
            Some(Err(error)) => {
                self.at += offset_of(&error, rest);
                let text = error.to_string();
                let reason = text.split(" at line ").next().unwrap_or(otherwise);
                Err(self.syntax(&format!("{otherwise}: {reason}")))
            }
            None => Err(self.syntax("the text ends too early")),
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn syntax(&self, detail: &str) -> SyntaxError {
        SyntaxError { offset: self.at, detail: detail.to_owned() }
    }
}

/// Where in a text an error is: at its end, or at the byte that is not as it has to be.
fn offset_of(error: &serde_json::Error, text: &str) -> usize {
    if error.is_eof() {
        return text.len();
    }
    let before = text.split_inclusive('\n').take(error.line().saturating_sub(1));
    let line: usize = before.map(str::len).sum();
    (line + error.column().saturating_sub(1)).min(text.len())
}

/// Appends a token to a JSON Pointer, escaped as RFC 6901 says.
pub(crate) fn push_token(pointer: &mut String, token: &str) {
    pointer.push('/');
    for char in token.chars() {
        match char {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}

#[cfg(test)]
mod tests;
