use clap::CommandFactory;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn up_takes_what_the_manual_says() {
    let line = "qkdnet up nice.yaml --isolation process --for 120s --speed 1 --seed 7 --data d --output json \
                --record r --record-for 2s --record-limit 300MB";
    let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
    let Command::Up(up) = cli.command else { panic!("not up") };
    assert_eq!(up.run.isolation, Isolation::Process);
    let overrides = up.run.overrides();
    assert_eq!((overrides.seed, overrides.duration_ps), (Some(7), Some(120_000_000_000_000)));
    assert_eq!(overrides.speed, Some(Speed::RealTime(1.0)));
    assert_eq!(up.run.output.output, Output::Json);
    assert_eq!((up.record.record_for.rounded(), up.record.record_limit), (2_000_000_000_000, 300_000_000));
}

#[test]
fn defaults_are_tasks_text_and_a_directory_per_topology() {
    let cli = Cli::try_parse_from(["qkdnet", "verify", "nice.yaml"]).unwrap();
    let Command::Verify(verify) = cli.command else { panic!("not verify") };
    assert_eq!((verify.run.isolation, verify.run.output.output), (Isolation::Tasks, Output::Text));
    assert_eq!(verify.run.data_dir("nice"), PathBuf::from("qkdnet-data/nice"));
}

#[test]
fn nonsense_is_refused_with_code_two() {
    for line in [
        "qkdnet up",
        "qkdnet up f --for 120",
        "qkdnet up f --for 0s",
        "qkdnet up f --for -3s",
        "qkdnet up f --speed fast",
        "qkdnet up f --seed -1",
        "qkdnet up f --record-for 3s",
        "qkdnet up f --record r --record-limit 3",
        "qkdnet replay f --tags valrose",
        "qkdnet digest",
        "qkdnet digset --data d",
    ] {
        let error = Cli::try_parse_from(line.split_whitespace()).err().unwrap_or_else(|| panic!("{line}"));
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn sizes_are_read_with_their_unit() {
    assert_eq!(bytes("1.5 GB"), Ok(1_500_000_000));
    assert_eq!(bytes("7B"), Ok(7));
    // Through a binary fraction this would be 1000.
    assert_eq!(bytes("1.001kB"), Ok(1001));
    assert!(bytes("7").is_err() && bytes("0B").is_err() && bytes("GB").is_err() && bytes("1e3MB").is_err());
}
