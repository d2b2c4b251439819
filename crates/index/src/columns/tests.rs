use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[test]
fn numbers_are_compared_exactly_however_they_are_written() {
    let f = |number: f64| Number::of_f64(number).unwrap();
    let (i, u) = (Number::of_i64, Number::of_u64);
    let ascending = [
        f(f64::MIN),
        i(i64::MIN),
        i(i64::MIN + 1),
        f(-1.5),
        i(-1),
        i(0),
        f(f64::MIN_POSITIVE),
        f(0.5),
        i(1),
        i((1 << 53) - 1),
        i(1 << 53),
        i((1 << 53) + 1),
        i((1 << 53) + 2),
        i(i64::MAX - 1),
        i(i64::MAX),
        u(1 << 63),
        u((1 << 63) + 1),
        u(u64::MAX - 1),
        u(u64::MAX),
        f(18_446_744_073_709_551_616.0),
        f(f64::MAX),
    ];
    assert!(ascending.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!((f(-0.0), f(1.0), f(9e15)), (i(0), u(1), i(9_000_000_000_000_000)));
    assert_eq!(Number::of_f64(f64::NAN).or(Number::of_f64(f64::INFINITY)), None);
}

#[test]
fn whole_numbers_of_64_bits_come_back_as_they_were() {
    for whole in [i64::MIN, -1, 0, 7, (1 << 53) + 1, i64::MAX] {
        assert_eq!(Number::of_i64(whole).as_whole(), Some(whole.into()));
    }
    for whole in [u64::MAX, u64::MAX - 1, 1 << 63] {
        assert_eq!(Number::of_u64(whole).as_whole(), Some(whole.into()));
    }
    let of = |number: f64| Number::of_f64(number).unwrap().as_whole();
    assert_eq!((of(3.0), of(-0.0)), (Some(3), Some(0)));
    for other in [0.5, 1e300, -1e300, 18_446_744_073_709_551_616.0, -9.3e18] {
        assert_eq!(of(other), None, "{other}");
    }
}

proptest! {
    #[test]
    fn whole_numbers_keep_their_order(a: i64, b: i64, c: u64) {
        prop_assert_eq!(Number::of_i64(a).cmp(&Number::of_i64(b)), a.cmp(&b));
        prop_assert_eq!(
            Number::of_i64(a).cmp(&Number::of_u64(c)),
            i128::from(a).cmp(&i128::from(c))
        );
    }

    #[test]
    fn columns_have_the_rows_of_every_range_of_values(
        added in prop::collection::vec((0_u8..6, 0_u8..12, any::<bool>(), 1_u32..4), 0..60),
        (from, to) in (0_u8..14, 0_u8..14),
    ) {
        let value = |n: u8| match n {
            0 => FieldValue::Null,
            1 => FieldValue::Bool(true),
            n if n < 6 => FieldValue::Number(Number::of_i64(n.into())),
            n if n < 8 => FieldValue::Time(n.into()),
            n => FieldValue::Text(n.to_string().repeat(2).into()),
        };
        let (mut builder, mut first, mut model) = (ColumnsBuilder::default(), 0, Vec::new());
        for (field, n, listed, rows) in added {
            builder.add(&field.to_string(), value(n), listed, first..first + rows);
            model.push((field, value(n), listed, first..first + rows));
            first += rows - 1;
        }
        let columns = builder.finish(first + 1);
        for field in 0..7_u8 {
            for (from, to) in [
                (Bound::Included(value(from)), Bound::Excluded(value(to))),
                (Bound::Excluded(value(from)), Bound::Included(value(to))),
                (Bound::Unbounded, Bound::Unbounded),
            ] {
                for listed in [false, true] {
                    let expect: BTreeSet<u32> = model
                        .iter()
                        .filter(|it| it.0 == field && it.2 == listed)
                        .filter(|it| (from.as_ref(), to.as_ref()).contains_value(&it.1))
                        .flat_map(|it| it.3.clone())
                        .collect();
                    let mut found = RowSet::empty(columns.rows());
                    if let Some(field) = columns.field(&field.to_string()) {
                        let column = field.columns()[usize::from(listed)];
                        let places = column.between(from.as_ref(), to.as_ref());
                        prop_assert!(column.values(places.clone()).is_sorted());
                        prop_assert!(column.rows_at_most(places.clone()) >= expect.len() as u64);
                        column.select(places, &mut found);
                    }
                    prop_assert_eq!(found.iter().collect::<BTreeSet<_>>(), expect);
                }
            }
        }
    }
}

trait ContainsValue {
    fn contains_value(&self, value: &FieldValue) -> bool;
}

impl ContainsValue for (Bound<&FieldValue>, Bound<&FieldValue>) {
    fn contains_value(&self, value: &FieldValue) -> bool {
        std::ops::RangeBounds::contains(self, value)
    }
}
