//! Levels that were scheduled for a simulated time.

use crate::config::Step;

/// The level at `t_s`: that of the last step begun, or `undisturbed` before the first.
pub(crate) fn level(steps: &[Step], t_s: f64, undisturbed: f64) -> f64 {
    steps.iter().rev().find(|step| step.at_s <= t_s).map_or(undisturbed, |step| step.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_step_begun_holds() {
        let steps = [Step { at_s: 1.0, value: 2.0 }, Step { at_s: 3.0, value: 5.0 }];
        let at = |t_s| level(&steps, t_s, 0.5);
        assert_eq!([at(0.0), at(1.0), at(2.9), at(3.0), at(9.0)], [0.5, 2.0, 2.0, 5.0, 5.0]);
    }
}
