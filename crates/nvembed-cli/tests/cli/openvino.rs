//! The program on the OpenVINO provider.

use crate::common::{mini, openvino};
use crate::{nvembed, run};

#[test]
fn verify_accepts_the_model_in_fp32() {
    let Some(library) = openvino::library() else { return };
    let mut verify = nvembed();
    verify.args(["verify", "--provider", "openvino", "--library"]).arg(&library).arg("-m").arg(mini("openvino-fp32"));
    let output = run(&mut verify, b"");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn bench_checks_and_times_it() {
    let Some(library) = openvino::library() else { return };
    let mut bench = nvembed();
    bench.args(["bench", "--quiet", "--provider", "openvino", "--seconds", "0.01", "--min-calls", "2", "--batch", "2"]);
    bench
        .args(["--length", "16", "--intra-threads", "1", "--library"])
        .arg(&library)
        .arg("-m")
        .arg(mini("openvino-fp32"));
    let output = run(&mut bench, b"");
    assert!(output.status.success(), "{output:?}");
    let row: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((row["status"].as_str(), row["provider"].as_str()), (Some("ok"), Some("openvino")));
    assert!(row["cosine_min"].as_f64().unwrap() > 1.0 - 1e-9, "{row}");
}
