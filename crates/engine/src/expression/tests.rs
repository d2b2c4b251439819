use std::time::{Duration, Instant};

use super::*;

/// The value of an expression whose names are 1, 2, 3 and so on, in the order in which they come.
fn value(text: &str) -> f64 {
    let expression = Expression::read(text, Preferences::default()).expect(text);
    let values: Vec<f64> = (1..=expression.names.len()).map(|n| n as f64).collect();
    expression.compute(&values)
}

fn fault(text: &str) -> String {
    Expression::read(text, Preferences::default()).expect_err(text)
}

#[test]
fn arithmetic_is_as_it_is_written_on_paper() {
    for (text, expect) in [
        ("1", 1.0),
        (" 2 + 3 * 4 ", 14.0),
        ("(2 + 3) * 4", 20.0),
        ("10 - 3 - 4", 3.0),
        ("100 / 10 / 2", 5.0),
        ("100 / 10 * 2", 20.0),
        ("7 % 4", 3.0),
        ("-2^2", -4.0),
        ("(-2)^2", 4.0),
        ("2^3^2", 512.0),
        ("2^-1", 0.5),
        ("2 * -3", -6.0),
        ("--3", 3.0),
        ("3 - -3", 6.0),
        ("-2 + 5", 3.0),
        ("1.5e2 + .5 + 2.", 152.5),
        ("1e-2", 0.01),
        ("a + b * a", 1.0 + 2.0),
        ("{a b} + of.depth * 10", 21.0),
        ("max(1, 5, min(3, 9), 2) + 1", 6.0),
        ("max(min(1, 2), min(3, 4))", 3.0),
        ("sqrt(16) + abs(-1) + pow(2, 3)", 13.0),
        ("ln(exp(2)) + log2(8) + log10(1000)", 8.0),
        ("round(1.5) + floor(1.9) + ceil(1.1) + sign(-7) + sign(0)", 4.0),
        ("tanh(0)", 0.0),
        ("if(2 > 1, 10, 20) + if(0, 1, 2)", 12.0),
        ("1 < 2 && 2 <= 2 && 3 >= 3 && 1 != 2 && 2 == 2", 1.0),
        ("0 || 1 && 0", 0.0),
        ("(0 || 1) && !0", 1.0),
        ("1 + 1 < 3 * 1", 1.0),
        ("!(1 > 2) * 5", 5.0),
    ] {
        let found = value(text);
        assert!((found - expect).abs() < 1e-12, "{text}: {found}");
    }
}

#[test]
fn what_is_no_number_stays_none() {
    assert!(value("0 / 0").is_nan());
    assert!(value("ln(-1)").is_nan());
    assert_eq!(value("1 / 0").total_cmp(&f64::INFINITY), std::cmp::Ordering::Equal);
    assert_eq!(value("9e307 ^ 9e307").total_cmp(&f64::INFINITY), std::cmp::Ordering::Equal);
    assert!((value("0/0 == 0/0")).abs() < 1e-12);
}

#[test]
fn a_fault_says_what_and_where() {
    for (text, part) in [
        ("", "a number, a name or a ( is needed, at its end"),
        ("1 +", "needed, at its end"),
        ("1 2", "where an operator is needed, at character 3 (\"2\")"),
        ("(1", "where ) is needed, at its end"),
        ("1)", "a ) without its ("),
        ("* 2", "needed, at character 1"),
        ("a b", "where an operator is needed"),
        ("{a", "a { without its }"),
        ("{ }", "without the name of a field"),
        ("5k", "where an operator is needed"),
        ("1e", "no number"),
        ("1e999", "no number that can be held"),
        ("1.2.3", "where an operator is needed"),
        (".", "no number"),
        ("system(1)", "none of its functions"),
        ("similarity(1)", "none of its functions"),
        ("min(1)", "gives min 1 values; it takes two values or more"),
        ("if(1, 2)", "a condition and two values"),
        ("sqrt()", "gives sqrt 0 values"),
        ("max(1,)", "needed, at character 7"),
        ("a = 1", "where an operator is needed"),
        ("\"a\"", "needed, at character 1"),
        ("1; 2", "where an operator is needed"),
        ("1 + \u{e9}\u{e9} \u{20ac}", "where an operator is needed, at character 8"),
    ] {
        let found = fault(text);
        assert!(found.contains(part), "{text}: {found}");
    }
}

#[test]
fn hostile_expressions_are_refused_or_computed_at_once() {
    let started = Instant::now();
    let deep = |n: usize| format!("{}1{}", "(".repeat(n), ")".repeat(n));
    assert!(fault(&deep(10_000)).contains("the limit is 1000"));
    assert!(fault(&deep(400)).contains("within each other"));
    assert!(fault(&"(".repeat(1000)).contains("within each other"));
    assert!(fault(&format!("{}1", "-".repeat(999))).contains("within each other"));
    assert!(fault(&format!("{}1", "1^".repeat(499))).contains("within each other"));
    assert!(fault(&format!("{}1", "max(1,".repeat(160))).contains("within each other"));
    assert!((value(&deep(EXPRESSION_DEPTH_MAX - 1)) - 1.0).abs() < 1e-12);
    assert!(fault(&deep(EXPRESSION_DEPTH_MAX)).contains("within each other"));
    let names: Vec<String> = (0..=EXPRESSION_NAMES_MAX).map(|n| format!("f{n}")).collect();
    assert!(fault(&names.join("+")).contains("more than 32 names"));
    assert!(fault(&"9".repeat(1000)).contains("no number that can be held"));
    // As long as can be, and flat.
    assert!((value(&format!("{}1", "1+".repeat(499))) - 500.0).abs() < 1e-9);
    assert!(value("9^9^9^9^9").is_infinite());
    assert!(value(&format!("max({}0)", "1,".repeat(490))) > 0.5);
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn random_text_is_never_a_panic() {
    let parts = [
        "(",
        ")",
        "{",
        "}",
        "-",
        "+",
        "!",
        "^",
        "*",
        "/",
        "%",
        "<",
        "<=",
        "==",
        "&&",
        "|",
        ",",
        "1",
        "1e",
        ".",
        "a",
        "max(",
        "if(",
        "\u{e9}",
        "\u{1F980}",
        " ",
        "\n",
        "\"",
        "similarity",
        "\\",
    ];
    let mut bits = 7_u64;
    for _round in 0..20_000 {
        let mut text = String::new();
        for _part in 0..12 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text.push_str(parts[(bits >> 33) as usize % parts.len()]);
        }
        if let Ok(expression) = Expression::read(&text, Preferences::default()) {
            let values = vec![1.0; expression.names.len()];
            let _number: f64 = expression.compute(&values);
        }
    }
}
