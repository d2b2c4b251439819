use proptest::collection::vec;
use proptest::prelude::*;

use super::{BoundRows, NearestPoint, PANEL_POINTS, POINT_CODE_MAX, PanelRows, Panels};
use crate::Kernels;

/// Points as they were set.
struct Points {
    codes: Vec<Vec<i8>>,
    scales: Vec<f32>,
    terms: Vec<f32>,
}

fn assert_nearest(dims: usize, points: &Points, rows: &[Vec<i8>], weights: &[f32]) {
    let mut panels = Panels::new(dims, points.codes.len());
    for (point, codes) in points.codes.iter().enumerate() {
        panels.set(point, codes, points.scales[point], points.terms[point]);
    }
    let stride = dims.next_multiple_of(4);
    let mut codes = Vec::new();
    for row in rows {
        codes.extend_from_slice(row);
        codes.resize(codes.len() + stride - dims, 0);
    }
    let expect: Vec<(u32, u32)> = rows
        .iter()
        .zip(weights)
        .map(|(row, weight)| {
            let mut nearest = (f32::INFINITY, 0);
            for (number, point) in (0_u32..).zip(&points.codes) {
                let product: i32 =
                    row.iter().zip(point).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum();
                let (scale, term) = (points.scales[number as usize], points.terms[number as usize]);
                let key = weight * term + scale * product as f32;
                if key < nearest.0 {
                    nearest = (key, number);
                }
            }
            (nearest.0.to_bits(), nearest.1)
        })
        .collect();
    for table in Kernels::supported() {
        let mut out = vec![NearestPoint { key: f32::NAN, point: 77 }; rows.len()];
        table.nearest_points(PanelRows { codes: &codes, weights }, &panels, &mut out);
        let found: Vec<(u32, u32)> = out.iter().map(|out| (out.key.to_bits(), out.point)).collect();
        assert_eq!(found, expect, "{} of {dims}", table.name());
    }
}

/// The pairs within reach by the definition.
fn within(points: &Points, reaches: &[[f32; 2]], rows: &[Vec<i8>], of: &Bounds) -> Vec<(u32, u32)> {
    let mut pairs = Vec::new();
    for (place, row) in (0_u32..).zip(rows) {
        let at = place as usize;
        for (number, point) in points.codes.iter().enumerate() {
            let panel = number / PANEL_POINTS * PANEL_POINTS;
            let most = |which: usize| {
                let panel = reaches.iter().skip(panel).take(PANEL_POINTS);
                panel.fold(0.0_f32, |most, reach| most.max(reach[which]))
            };
            let product: i32 =
                row.iter().zip(point).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum();
            let limit = of.limits[at] - (of.reaches[at][0] * most(0) + of.reaches[at][1] * most(1));
            let reached = of.weights[at] * (points.scales[number] * product as f32);
            let short = reached < limit + points.terms[number];
            if !short {
                pairs.push((place, u32::try_from(number).unwrap()));
            }
        }
    }
    pairs
}

struct Bounds {
    weights: Vec<f32>,
    limits: Vec<f32>,
    reaches: Vec<[f32; 2]>,
}

fn assert_within(dims: usize, points: &Points, reaches: &[[f32; 2]], rows: (&[Vec<i8>], &Bounds)) {
    let mut panels = Panels::new(dims, 0);
    for (point, codes) in points.codes.iter().enumerate() {
        if point == panels.points() {
            panels.grow();
        }
        panels.set(point, codes, points.scales[point], points.terms[point]);
        panels.reach(point, reaches[point]);
    }
    let (rows, limits) = rows;
    let stride = dims.next_multiple_of(4);
    let mut codes = Vec::new();
    for row in rows {
        codes.extend_from_slice(row);
        codes.resize(codes.len() + stride - dims, 0);
    }
    let Bounds { weights, limits: least, reaches: counted } = limits;
    let bound = BoundRows { codes: &codes, weights, limits: least, reaches: counted };
    let expect = within(points, reaches, rows, limits);
    for table in Kernels::supported() {
        let mut found = Vec::new();
        table.points_within(bound, &panels, &mut |row, point| found.push((row, point)));
        found.sort_unstable();
        assert_eq!(found, expect, "{} of {dims}", table.name());
    }
    for point in 0..points.codes.len() {
        panels.clear(point);
    }
    for table in Kernels::supported() {
        table.points_within(bound, &panels, &mut |row, point| panic!("{row} {point} is cleared"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn k5_the_points_within_reach_are_the_same_in_every_table(
        dims in prop_oneof![1_usize..70, Just(128), Just(384)],
        (points, rows) in (1_usize..150, 0_usize..70),
        seed in any::<u64>(),
    ) {
        let mut state = seed;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
            let [.., byte] = state.to_le_bytes();
            byte.cast_signed()
        };
        let code = |byte: i8| byte.clamp(-POINT_CODE_MAX, POINT_CODE_MAX);
        let codes: Vec<Vec<i8>> =
            (0..points).map(|_| (0..dims).map(|_| code(byte())).collect()).collect();
        let scales = (0..points).map(|_| f32::from(byte()).abs() / 64.0).collect();
        let terms = (0..points).map(|_| f32::from(byte()) * 4.0).collect();
        let reaches: Vec<[f32; 2]> =
            (0..points).map(|_| [f32::from(byte()).abs(), f32::from(byte()).abs()]).collect();
        let rows: Vec<Vec<i8>> = (0..rows).map(|_| (0..dims).map(|_| byte()).collect()).collect();
        let mut number = |scale: f32| -> Vec<f32> {
            rows.iter().map(|_| f32::from(byte()) * scale).collect()
        };
        // About half of all pairs are within reach.
        let (weights, limits) = (number(0.02), number(200.0));
        let reaches_of = number(0.5).into_iter().zip(number(0.5)).map(|(a, b)| [a, b]).collect();
        let limits = Bounds { weights, limits, reaches: reaches_of };
        assert_within(dims, &Points { codes, scales, terms }, &reaches, (&rows, &limits));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn k5_the_nearest_point_is_the_same_in_every_table(
        dims in prop_oneof![1_usize..70, Just(128), Just(384)],
        (points, rows) in (1_usize..150, 0_usize..70),
        seed in any::<u64>(),
        ends in any::<bool>(),
    ) {
        let mut state = seed;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
            let [.., byte] = state.to_le_bytes();
            // At the ends of the range, where 16 bits would be left first.
            if ends && byte & 1 == 1 { i8::MIN } else { byte.cast_signed() }
        };
        let code = |byte: i8| byte.clamp(-POINT_CODE_MAX, POINT_CODE_MAX);
        let codes: Vec<Vec<i8>> =
            (0..points).map(|_| (0..dims).map(|_| code(byte())).collect()).collect();
        let scales = (0..points).map(|_| -f32::from(byte()).abs() / 64.0).collect();
        let terms = (0..points).map(|_| f32::from(byte()) * 4.0).collect();
        let rows: Vec<Vec<i8>> = (0..rows).map(|_| (0..dims).map(|_| byte()).collect()).collect();
        let weights: Vec<f32> = rows.iter().map(|_| f32::from(byte()).abs() / 16.0).collect();
        assert_nearest(dims, &Points { codes, scales, terms }, &rows, &weights);
    }

    #[test]
    fn k5_products_are_exact_at_the_ends_of_their_range(
        rows in vec(prop_oneof![Just(-128_i8), Just(127), Just(0)], 40),
        points in vec(prop_oneof![Just(-POINT_CODE_MAX), Just(POINT_CODE_MAX)], 40),
    ) {
        let points = Points { codes: vec![points], scales: vec![-1.0], terms: vec![0.0] };
        assert_nearest(40, &points, &[rows], &[1.0]);
    }
}

#[test]
fn points_without_a_number_are_never_nearest() {
    let points = Points {
        codes: vec![vec![1, 1]; 3],
        scales: vec![f32::NAN, -1.0, -1.0],
        terms: vec![0.0, f32::INFINITY, 5.0],
    };
    assert_nearest(2, &points, &[vec![2, 2]], &[1.0]);
}

#[test]
fn a_limit_that_is_no_number_rules_nothing_out() {
    let points = Points {
        codes: vec![vec![1, 1]; 4],
        scales: vec![1.0, f32::NAN, 1.0, 1.0],
        terms: vec![0.0, 0.0, f32::NEG_INFINITY, f32::INFINITY],
    };
    let panels = [[0.0; 2]; 4];
    for (limit, expect) in [(9.0, 2), (f32::NAN, 4), (f32::NEG_INFINITY, 4), (f32::INFINITY, 2)] {
        let limits = Bounds { weights: vec![1.0], limits: vec![limit], reaches: vec![[0.0; 2]] };
        assert_eq!(within(&points, &panels, &[vec![2, 2]], &limits).len(), expect, "{limit}");
    }
}
