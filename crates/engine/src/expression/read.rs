//! Reading an expression: one pass from left to right, each operator after its operands.

use super::{EXPRESSION_DEPTH_MAX, EXPRESSION_NAMES_MAX, Step, holds};

/// What an operator does with the parts on its sides.
type Two = fn(f64, f64) -> f64;

/// What a function does with its values.
#[derive(Debug, Clone, Copy)]
enum Function {
    One(fn(f64) -> f64),
    Two(Two),
    /// Of two or more: the first two, then the result and the next.
    Fold(Two),
    /// `if(condition, then, else)`.
    Choose,
}

const FUNCTIONS: [(&str, Function); 15] = [
    ("abs", Function::One(f64::abs)),
    ("ceil", Function::One(f64::ceil)),
    ("exp", Function::One(f64::exp)),
    ("floor", Function::One(f64::floor)),
    ("if", Function::Choose),
    ("ln", Function::One(f64::ln)),
    ("log10", Function::One(f64::log10)),
    ("log2", Function::One(f64::log2)),
    ("max", Function::Fold(f64::max)),
    ("min", Function::Fold(f64::min)),
    ("pow", Function::Two(f64::powf)),
    ("round", Function::One(f64::round)),
    ("sign", Function::One(sign)),
    ("sqrt", Function::One(f64::sqrt)),
    ("tanh", Function::One(f64::tanh)),
];

/// Operators between two parts, the longer before those that begin alike, and how tightly they bind.
const BETWEEN: [(&str, u8, Two); 13] = [
    ("||", 1, |a, b| truth(holds(a) || holds(b))),
    ("&&", 2, |a, b| truth(holds(a) && holds(b))),
    ("<=", 3, |a, b| truth(a <= b)),
    (">=", 3, |a, b| truth(a >= b)),
    ("==", 3, |a, b| truth(equal(a, b))),
    ("!=", 3, |a, b| truth(!equal(a, b))),
    ("<", 3, |a, b| truth(a < b)),
    (">", 3, |a, b| truth(a > b)),
    ("+", 4, |a, b| a + b),
    ("-", 4, |a, b| a - b),
    ("*", 5, |a, b| a * b),
    ("/", 5, |a, b| a / b),
    ("%", 5, |a, b| a % b),
];
/// How tightly a sign binds its part: only a power binds more.
const SIGN: u8 = 6;

/// Whether two numbers are the same; what is no number equals nothing.
fn equal(a: f64, b: f64) -> bool {
    a.partial_cmp(&b).is_some_and(std::cmp::Ordering::is_eq)
}

fn truth(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

fn sign(number: f64) -> f64 {
    if holds(number) { number.signum() } else { 0.0 }
}

/// The steps of an expression, and its names in the order in which they come.
pub(super) fn read(text: &str) -> Result<(Vec<Step>, Vec<&str>), String> {
    let mut reader = Reader { text, rest: text, depth: 0, steps: Vec::new(), names: Vec::new() };
    reader.expression(0)?;
    match reader.next() {
        None => Ok((reader.steps, reader.names)),
        Some(')') => Err(reader.fault("has a ) without its (")),
        Some(_) => Err(reader.fault("has something else where an operator is needed")),
    }
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
    depth: usize,
    steps: Vec<Step>,
    names: Vec<&'a str>,
}

impl<'a> Reader<'a> {
    /// What is wrong, and where.
    fn fault(&self, what: &str) -> String {
        let read = self.text.len() - self.rest.len();
        let at = self.text.get(..read).map_or(0, |read| read.chars().count());
        let shown: String = self.rest.chars().take(20).collect();
        match shown.as_str() {
            "" => format!("{what}, at its end"),
            shown => format!("{what}, at character {} ({shown:?})", at + 1),
        }
    }

    /// The next character that is no space.
    fn next(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    /// Whether this stands next, which is then passed.
    fn takes(&mut self, what: &str) -> bool {
        self.rest = self.rest.trim_start();
        let rest = self.rest.strip_prefix(what);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn needs(&mut self, what: &str) -> Result<(), String> {
        if self.takes(what) {
            return Ok(());
        }
        Err(self.fault(&format!("has something else where {what} is needed")))
    }

    /// An expression of operators that bind more tightly than `least`.
    fn expression(&mut self, least: u8) -> Result<(), String> {
        self.depth += 1;
        if self.depth > EXPRESSION_DEPTH_MAX {
            let what = format!("has more than {EXPRESSION_DEPTH_MAX} parts within each other");
            return Err(self.fault(&what));
        }
        self.signed()?;
        while self.next().is_some() {
            let found = BETWEEN.iter().find(|(operator, ..)| self.rest.starts_with(operator));
            let Some((operator, tight, function)) = found.filter(|(_, tight, _)| *tight > least)
            else {
                break;
            };
            self.rest = &self.rest[operator.len()..];
            self.expression(*tight)?;
            self.steps.push(Step::Two(*function));
        }
        self.depth -= 1;
        Ok(())
    }

    /// A part with its sign and its power.
    fn signed(&mut self) -> Result<(), String> {
        let sign: Option<fn(f64) -> f64> = match self.next() {
            Some('-') => Some(|it| -it),
            Some('+') => Some(|it| it),
            Some('!') => Some(|it| truth(!holds(it))),
            _part => None,
        };
        if let Some(sign) = sign {
            self.rest = &self.rest[1..];
            self.expression(SIGN)?;
            self.steps.push(Step::One(sign));
            return Ok(());
        }
        self.part()?;
        if self.takes("^") {
            self.expression(SIGN)?;
            self.steps.push(Step::Two(f64::powf));
        }
        Ok(())
    }

    fn part(&mut self) -> Result<(), String> {
        match self.next() {
            Some('(') => {
                self.rest = &self.rest[1..];
                self.expression(0)?;
                self.needs(")")
            }
            Some('{') => {
                let Some(end) = self.rest.find('}') else {
                    return Err(self.fault("has a { without its }"));
                };
                let name = &self.rest[1..end];
                self.name(name)?;
                self.rest = &self.rest[end + 1..];
                Ok(())
            }
            Some('0'..='9' | '.') => self.number(),
            Some(letter) if letter.is_alphabetic() || letter == '_' => {
                let within = |it: char| it.is_alphanumeric() || it == '_' || it == '.';
                let end = self.rest.find(|it| !within(it)).unwrap_or(self.rest.len());
                let (name, rest) = self.rest.split_at(end);
                if rest.trim_start().starts_with('(') {
                    return self.function(name, rest);
                }
                self.name(name)?;
                self.rest = rest;
                Ok(())
            }
            _other => Err(self.fault("has something else where a number, a name or a ( is needed")),
        }
    }

    fn name(&mut self, name: &'a str) -> Result<(), String> {
        if name.trim().is_empty() {
            return Err(self.fault("has a {} without the name of a field in it"));
        }
        let known = self.names.iter().position(|known| *known == name);
        if known.is_none() && self.names.len() == EXPRESSION_NAMES_MAX {
            return Err(self.fault(&format!("has more than {EXPRESSION_NAMES_MAX} names")));
        }
        let place = known.unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        });
        self.steps.push(Step::Name(place));
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        let digits = |text: &str| text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
        let mut end = digits(self.rest);
        if self.rest[end..].starts_with('.') {
            end += 1;
            end += digits(&self.rest[end..]);
        }
        if self.rest[end..].starts_with(['e', 'E']) {
            let sign = usize::from(self.rest[end + 1..].starts_with(['+', '-']));
            end += 1 + sign;
            end += digits(&self.rest[end..]);
        }
        let number = self.rest[..end].parse::<f64>().ok().filter(|number| number.is_finite());
        let Some(number) = number else {
            return Err(self.fault("has no number that can be held where it begins like one"));
        };
        self.rest = &self.rest[end..];
        self.steps.push(Step::Number(number));
        Ok(())
    }

    fn function(&mut self, name: &str, rest: &'a str) -> Result<(), String> {
        let Some((_, function)) = FUNCTIONS.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = FUNCTIONS.iter().map(|(known, _)| *known).collect();
            let what = format!("calls what is none of its functions, {}", known.join(", "));
            return Err(self.fault(&what));
        };
        let before = self.rest;
        self.rest = rest;
        self.needs("(")?;
        let mut values = 0;
        if !self.takes(")") {
            loop {
                self.expression(0)?;
                values += 1;
                match function {
                    Function::Fold(step) if values > 1 => self.steps.push(Step::Two(*step)),
                    Function::Fold(_) | Function::One(_) | Function::Two(_) | Function::Choose => {}
                }
                if !self.takes(",") {
                    break;
                }
            }
            self.needs(")")?;
        }
        let (wanted, step) = match function {
            Function::One(step) => ("one value", (values == 1).then_some(Some(Step::One(*step)))),
            Function::Two(step) => ("two values", (values == 2).then_some(Some(Step::Two(*step)))),
            Function::Fold(_) => ("two values or more", (values >= 2).then_some(None)),
            Function::Choose => {
                ("a condition and two values", (values == 3).then_some(Some(Step::Choose)))
            }
        };
        let Some(step) = step else {
            self.rest = before;
            return Err(self.fault(&format!("gives {name} {values} values; it takes {wanted}")));
        };
        self.steps.extend(step);
        Ok(())
    }
}
