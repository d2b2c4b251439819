//! The oracle, and what instruction sets without an own version run.

use super::{
    BoundRows, NearestPoint, PANEL_NUMBERS, PANEL_POINTS, Panel, PanelRows, Panels, run, run_within,
};

/// [`crate::Kernels::nearest_points`].
pub(crate) fn nearest(rows: PanelRows<'_>, panels: &Panels, out: &mut [NearestPoint]) {
    run::<1>(rows, panels, out, |[row], panel| [products(row, panel)]);
}

/// The same compiled for NEON.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
pub(crate) fn nearest_neon(rows: PanelRows<'_>, panels: &Panels, out: &mut [NearestPoint]) {
    nearest(rows, panels, out);
}

/// [`crate::Kernels::points_within`].
pub(crate) fn within(rows: BoundRows<'_>, panels: &Panels, found: &mut dyn FnMut(u32, u32)) {
    run_within::<1>(rows, panels, found, |[row], panel| [products(row, panel)]);
}

/// The same compiled for NEON.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
pub(crate) fn within_neon(rows: BoundRows<'_>, panels: &Panels, found: &mut dyn FnMut(u32, u32)) {
    within(rows, panels, found);
}

fn products(row: &[i8], panel: Panel<'_>) -> [i32; PANEL_POINTS] {
    let mut sums = [0; PANEL_POINTS];
    let (row, _) = row.as_chunks::<PANEL_NUMBERS>();
    for (row, step) in row.iter().zip(panel.codes) {
        let (points, _) = step.as_chunks::<PANEL_NUMBERS>();
        for (sum, point) in sums.iter_mut().zip(points) {
            for (row, point) in row.iter().zip(point) {
                *sum += i32::from(*row) * i32::from(*point);
            }
        }
    }
    sums
}
