//! `nvembed bench report`: what the page draws, looked at in a browser, and the tables.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use crate::common::{mini, skipped};
use crate::{nvembed, run};
use serde_json::{Value, json};

/// Rows of the real program, of two precisions and four shapes, in two rounds.
static MEASURED: LazyLock<PathBuf> = LazyLock::new(|| {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-report.jsonl");
    let _ = fs::remove_file(&file); // of another run, since rows are appended
    let mut command = nvembed();
    command.args(["bench", "--quiet", "--seconds", "0.01", "--min-calls", "2", "--rounds", "2"]);
    command.args(["--batch", "1,3", "--length", "16,40", "-m"]).arg(mini("fp32")).arg("-m").arg(mini("int8"));
    let output = run(command.arg("-o").arg(&file), b"");
    assert!(output.status.success(), "{output:?}");
    file
});

fn rows(file: &Path) -> Vec<Value> {
    fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn write(file: PathBuf, rows: &[Value]) -> PathBuf {
    fs::write(&file, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    file
}

fn shape(batch: usize, length: usize) -> Value {
    json!({"kind": "shape", "batch": batch, "length": length})
}

/// A row with some fields of its own.
fn row(template: &Value, changes: Value) -> Value {
    let mut row = template.clone();
    row.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    row
}

/// What no CPU gives at will: another machine's provider, rates, and rows that are no results though they hold speeds.
fn made_up(template: &Value) -> Vec<Value> {
    let cuda = row(template, json!({"provider": "cuda", "gpu": "Example GPU", "processor": "Another processor"}));
    let mut rows = vec![
        row(&cuda, json!({"workload": shape(1, 16), "tokens_per_s": 100.0})),
        row(&cuda, json!({"workload": shape(1, 16), "tokens_per_s": 400.0, "round": 1})),
        row(&cuda, json!({"workload": shape(1, 16), "tokens_per_s": 200.0, "round": 2})),
        row(
            &cuda,
            json!({"workload": shape(1, 40), "tokens_per_s": 1e9, "status": "wrong", "error": "it is 0.5 </script><b>"}),
        ),
        row(
            &cuda,
            json!({"workload": shape(3, 16), "tokens_per_s": 1e9, "status": "failed", "error": "out | of memory"}),
        ),
        row(&cuda, json!({"workload": shape(3, 40), "tokens_per_s": 1e9, "status": "dry_run", "calls": 1})),
        row(template, json!({"workload": {"kind": "texts"}, "padding_waste": 0.25, "tokens_per_s": 300.0})),
    ];
    for (rate, answered) in [(5.0, 5.0), (50.0, 20.0), (100.0, 20.0)] {
        rows.push(row(
            template,
            json!({"workload": {"kind": "texts"}, "rate_per_s": rate, "texts_per_s": answered, "padding_waste": null,
            "session_share": null, "share_of_peak": null, "rows": 1}),
        ));
    }
    rows
}

fn report(files: &[&Path], arguments: &[&str]) -> Output {
    run(nvembed().args(["bench", "report"]).args(files).args(arguments), b"")
}

/// What a script sees of the page, `width` pixels wide, in a browser without a network. The page is not changed: it is a
/// frame of another one.
fn look(page: &Path, width: usize, script: &str) -> Option<Value> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = names.iter().find(|name| Command::new(name).arg("--version").output().is_ok());
    let Some(browser) = found else {
        assert!(std::env::var_os("NVEMBED_REQUIRE_TOOLS").is_none(), "none of {names:?} is installed");
        skipped("looking at the report", &format!("none of {names:?} is installed"));
        return None;
    };
    let frame = page.with_extension("frame.html");
    let name = page.file_name().unwrap().to_str().unwrap();
    let html = format!(
        "<!doctype html><iframe src='{name}' style='width:{width}px;height:900px;border:0'></iframe><script>
onload = async () => {{
  const view = document.querySelector('iframe').contentWindow, page = view.document;
  const count = (selector) => page.querySelectorAll(selector).length;
  const texts = (selector) => [...page.querySelectorAll(selector)].map((one) => one.textContent);
  let seen;
  try {{ seen = await (async () => {{ {script} }})(); }} catch (error) {{ seen = {{ error: `${{error}}` }}; }}
  const result = document.createElement('pre');
  result.textContent = `SEEN${{JSON.stringify(seen)}}SEEN`;
  document.body.replaceChildren(result);
}};</script>"
    );
    fs::write(&frame, html).unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"])
        .args(["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--virtual-time-budget=10000"])
        .arg(format!("--user-data-dir={}", page.with_extension("profile").display()))
        .arg(format!("file://{}", frame.display()))
        .output()
        .unwrap();
    let (dom, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!log.contains("CONSOLE"), "{log}");
    let seen = dom.split("SEEN").nth(1).unwrap_or_else(|| panic!("nothing seen: {dom}\n{log}"));
    let seen = seen.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", "\u{a0}").replace("&amp;", "&");
    let seen: Value = serde_json::from_str(&seen).unwrap();
    assert!(seen.get("error").is_none(), "{seen}");
    Some(seen)
}

/// The rows with the longest numbers that a machine may give, different in each round.
fn long_numbers(rows: &[Value]) -> Vec<Value> {
    let long = |(index, template): (usize, &Value)| {
        let of = |number: f64| json!(number + index as f64 * 11_111.1);
        let latency = json!({"min": of(1e5), "p50": of(123_456.7), "p90": of(2e5), "p99": of(3e5), "max": of(4e5)});
        let changes = json!({"tokens_per_s": of(1_123_456.7), "texts_per_s": of(223_456.7), "latency_ms": latency,
            "gflop_per_s": of(523_456.7), "peak_gflop_per_s": of(923_456.7), "peak_memory_bytes": 700_000_000_000_u64,
            "device_memory_bytes": 80_000_000_000_u64, "open_s": of(1_234.5), "calls": 1_000_000});
        row(template, changes)
    };
    rows.iter().enumerate().map(long).collect()
}

/// Results of every kind, and the page made of them.
fn every_kind(folder: &Path) -> PathBuf {
    let made_up = write(folder.join("made up.jsonl"), &made_up(&rows(&MEASURED)[0]));
    let page = folder.join("report.html");
    let output = report(&[&MEASURED, &made_up], &["-o", page.to_str().unwrap()]);
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    page
}

#[test]
fn every_result_is_drawn_and_what_is_none_is_said_instead() {
    let folder = tempfile::tempdir().unwrap();
    let page = every_kind(folder.path());
    let script = r#"
        const drawn = {};
        for (const { id } of page.querySelectorAll('main section')) {
          drawn[id] = count(`#${id} g[aria-label="dot"] > *`) + count(`#${id} g[aria-label="rect"] > *`);
        }
        const marks = [...page.querySelectorAll('#batch g[aria-label="dot"] > *')];
        const places = marks.map((mark) => mark.getBoundingClientRect());
        return {
          drawn,
          spreads: count('#batch [aria-label="least to largest"]'),
          hollow: count('#load g[aria-label="dot"] > [fill="var(--card)"]'),
          finite: places.every((place) => place.width > 0 && place.width < 30),
          series: texts('#series label span'), warnings: texts('#warnings li'), best: texts('#best .value'), notes: texts('#notes li'),
          table: [...page.querySelectorAll('#numbers tbody tr')].map((row) => [...row.children].map((cell) => cell.textContent)),
          facts: page.querySelector('#facts').textContent,
          loaded: view.performance.getEntriesByType('resource').length, bold: count('b'),
        };"#;
    let Some(seen) = look(&page, 1400, script) else { return };
    let wanted = json!({"batch": 9, "length": 9, "throughput": 1, "load": 9, "latency": 10, "quality": 3, "peak": 10,
        "session": 10, "padding": 1});
    assert_eq!(seen["drawn"], wanted);
    assert!(seen["spreads"].as_u64().unwrap() >= 1 && seen["finite"] == true, "{seen}");
    assert_eq!(seen["hollow"], 6, "the rates that were not kept up with, in each quantile's plot");
    assert_eq!(seen["series"], json!(["cpu · fp32", "cpu · int8", "cuda · fp32"]));
    assert_eq!((&seen["loaded"], &seen["bold"]), (&json!(0), &json!(0)), "nothing is loaded, and no text is markup");

    let text =
        |list: &Value| list.as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect::<Vec<_>>().join("\n");
    let warnings = text(&seen["warnings"]);
    for wanted in [
        "1 of 26 rows are wrong",
        "1 of 26 rows are failures",
        "1 of 26 rows are dry runs",
        "Rows of 2 machines are mixed",
        "cuda · fp32: wrong (1x40) it is 0.5 </script><b>",
        "cuda · fp32: failed (3x16) out | of memory",
        "cuda · fp32: dry run (3x40)",
    ] {
        assert!(warnings.contains(wanted), "{wanted}: {warnings}");
    }
    assert!(!text(&seen["best"]).contains("1,000,000,000"), "a speed of no result is the best: {seen}");
    for wanted in ["Example GPU", "Another processor", "ONNX Runtime 1.", "commit", "bench --quiet", "Copyright"] {
        assert!(seen["facts"].as_str().unwrap().contains(wanted), "{wanted}: {}", seen["facts"]);
    }

    let table = seen["table"].as_array().unwrap();
    assert_eq!(table.len(), 16, "{table:?}");
    let line = |of: &str, workload: &str| {
        let found = table.iter().find(|row| row[0] == of && row[1] == workload);
        found.unwrap_or_else(|| panic!("{of} {workload}: {table:?}")).as_array().unwrap().clone()
    };
    assert_eq!(line("cuda · fp32", "1 × 16")[2..4], ["ok", "200100 to 400"], "the median, the least and the largest");
    assert_eq!(line("cuda · fp32", "1 × 40")[2..], ["wrong", "it is 0.5 </script><b>"]);
    assert_eq!(line("cuda · fp32", "3 × 40")[2], "dry run");
    assert_eq!(line("cpu · int8", "3 × 40").last().unwrap(), "2", "rounds");
}

#[test]
fn nothing_is_cut_off_on_narrow_and_wide_screens() {
    let folder = tempfile::tempdir().unwrap();
    let every_kind = every_kind(folder.path());
    let long = write(folder.path().join("long.jsonl"), &long_numbers(&rows(&MEASURED)));
    let page_of_long = folder.path().join("long.html");
    let output = report(&[&long], &["-o", page_of_long.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    for (page, width) in [(&every_kind, 400), (&every_kind, 1400), (&page_of_long, 400), (&page_of_long, 1400)] {
        let script = r#"
            const wide = page.documentElement.scrollWidth - page.documentElement.clientWidth;
            const cut = [];
            for (const figure of page.querySelectorAll('figure')) {
              const frame = figure.getBoundingClientRect();
              for (const one of figure.querySelectorAll('svg, text')) {
                const box = one.getBoundingClientRect();
                if (box.left < frame.left || box.right > frame.right || box.top < frame.top || box.bottom > frame.bottom) {
                  cut.push(`${one.tagName} ${one.textContent}`);
                }
              }
            }
            const scroll = page.querySelector('.scroll');
            const hidden = scroll.scrollWidth - scroll.clientWidth;
            return { wide, cut, hidden, figures: count('figure svg'), inner: view.innerWidth };"#;
        let Some(seen) = look(page, width, script) else { return };
        assert_eq!((&seen["wide"], &seen["cut"], &seen["inner"]), (&json!(0), &json!([]), &json!(width)));
        assert!(seen["figures"].as_u64().unwrap() > 10, "{seen}");
        assert!(width < 1400 || seen["hidden"] == 0, "the table needs scrolling: {seen}");
    }
}

#[test]
fn the_page_answers_to_pointer_and_keyboard() {
    let folder = tempfile::tempdir().unwrap();
    let page = every_kind(folder.path());
    let script = r#"
        const points = () => count('#batch g[aria-label="dot"] > *');
        const all = points();
        const mark = page.querySelector('#batch [aria-label^="cuda · fp32"]');
        const box = mark.getBoundingClientRect();
        const at = { clientX: box.x + box.width / 2, clientY: box.y + box.height / 2, pointerType: 'mouse', bubbles: true };
        for (const kind of ['pointerenter', 'pointermove']) {
          mark.closest('svg').dispatchEvent(new view.PointerEvent(kind, at));
          await new Promise((done) => setTimeout(done, 100));
        }
        const tip = texts('#batch g[aria-label="tip"]').join('');
        page.querySelector('#series label:nth-of-type(3) input').click();
        const without = points();
        const select = page.querySelector('#quality select');
        select.value = '3x40';
        select.dispatchEvent(new view.Event('change'));
        const chosen = count('#quality g[aria-label="dot"] > *');
        const button = [...page.querySelectorAll('#numbers th button')].find((one) => one.textContent === 'tokens/s');
        const speeds = () => {
          const rows = [...page.querySelectorAll('#numbers tbody tr')].filter((row) => row.children[2].textContent === 'ok');
          return rows.map((row) => parseFloat(row.children[3].firstChild.textContent.replaceAll(',', '')));
        };
        button.click();
        const falling = [speeds(), button.parentElement.getAttribute('aria-sort')];
        button.click();
        const rising = [speeds(), button.parentElement.getAttribute('aria-sort')];
        const named = [...page.querySelectorAll('figure svg, table button, input, select, .scroll')].every((one) =>
          one.ariaLabel || one.textContent || one.labels?.length || one.hasAttribute('aria-labelledby'));
        return { all, tip, without, chosen, falling, rising, named, headings: texts('h1, h2') };"#;
    let Some(seen) = look(&page, 1400, script) else { return };
    assert_eq!((&seen["all"], &seen["without"], &seen["chosen"]), (&json!(9), &json!(8), &json!(2)));
    for wanted in ["cuda · fp32", "200 (100 to 400) tokens/s", "3 rounds"] {
        assert!(seen["tip"].as_str().unwrap().contains(wanted), "{wanted}: {seen}");
    }
    let speeds =
        |order: &Value| order[0].as_array().unwrap().iter().map(|speed| speed.as_f64().unwrap()).collect::<Vec<_>>();
    assert!(speeds(&seen["falling"]).is_sorted_by(|a, b| a >= b) && seen["falling"][1] == "descending", "{seen}");
    assert!(
        speeds(&seen["rising"]).is_sorted() && seen["rising"][1] == "ascending" && speeds(&seen["rising"]).len() == 13
    );
    assert!(seen["named"] == true && seen["headings"].as_array().unwrap().len() == 12, "{seen}");
}

#[test]
fn the_page_names_no_resource_of_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(every_kind(folder.path())).unwrap();
    assert!(text.contains("default-src 'none'"));
    for resource in ["src=", "<link", "@import", "url(", "<iframe", "<img"] {
        // In the libraries these are parts of code that makes elements, such as a gradient's reference.
        let outside = text
            .split("<script>")
            .enumerate()
            .map(|(place, part)| if place == 0 { part } else { part.split_once("</script>").unwrap().1 });
        assert!(!outside.collect::<String>().contains(resource), "{resource}");
    }
}

#[test]
fn the_table_has_a_line_for_each_measurement_and_each_reason() {
    let folder = tempfile::tempdir().unwrap();
    let made_up = write(folder.path().join("made up.jsonl"), &made_up(&rows(&MEASURED)[0]));
    let output = report(&[&MEASURED, &made_up], &["--markdown"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().take_while(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 2 + 13 + 3, "{text}");
    let cells: Vec<_> = lines.iter().map(|line| line.replace("\\|", "").matches('|').count()).collect();
    assert_eq!(cells, vec![cells[0]; cells.len()], "{text}");
    assert!(text.contains("| cuda | fp32 | 1x16 | 200 (100 to 400) |"), "{text}");
    assert!(text.contains("| cuda | fp32 | 3x16 | **failed**: out \\| of memory |"), "{text}");
    assert!(text.contains(" Rows of 2 machines are mixed") && !text.contains("1,000,000,000"), "{text}");

    let one = report(&[&MEASURED, &made_up], &["--markdown", "--workload", "3x40"]);
    let one = String::from_utf8(one.stdout).unwrap();
    assert_eq!(one.lines().take_while(|line| !line.is_empty()).count(), 2 + 2 + 1, "{one}");
}

#[test]
fn names_take_what_tells_series_apart_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let template = &rows(&MEASURED)[0];
    let names = |changes: &[Value]| {
        let rows: Vec<_> = changes.iter().map(|changes| row(template, changes.clone())).collect();
        let file = write(folder.path().join("names.jsonl"), &rows);
        let text = String::from_utf8(report(&[&file], &["--markdown"]).stdout).unwrap();
        let lines: Vec<_> = text.lines().skip(2).take_while(|line| !line.is_empty()).collect();
        lines.iter().map(|line| line.split(" | 1x16 ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        names(&[json!({}), json!({"folder": "elsewhere", "precision": "fp16"})]),
        ["| cpu | fp32", "| cpu | fp16"]
    );
    let threads = names(&[json!({"threads": 1}), json!({}), json!({"threads": 1, "round": 1})]);
    assert_eq!(threads, ["| cpu | fp32 | --threads 1", "| cpu | fp32 | default threads"]);
    let commits = names(&[json!({"commit": "aaa"}), json!({"commit": "bbb"})]);
    assert_eq!(commits, ["| cpu | fp32 | commit aaa", "| cpu | fp32 | commit bbb"]);
    // The same workload of another amount of text is another measurement.
    let texts = |tokens: usize| json!({"workload": {"kind": "texts"}, "tokens": tokens, "rows": 2});
    let file = write(folder.path().join("texts.jsonl"), &[row(template, texts(20)), row(template, texts(40))]);
    let text = String::from_utf8(report(&[&file], &["--markdown"]).stdout).unwrap();
    assert!(text.contains("| texts (2 × 10 tokens) |") && text.contains("| texts (2 × 20 tokens) |"), "{text}");
}

#[test]
fn what_cannot_be_shown_is_refused_and_no_page_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let empty = write(folder.path().join("empty.jsonl"), &[]);
    let damaged = folder.path().join("damaged.jsonl");
    fs::write(&damaged, "\n{}\n").unwrap();
    let missing = folder.path().join("missing.jsonl");
    let page = folder.path().join("page.html");
    let output = page.to_str().unwrap();
    for (file, arguments, code, wanted) in [
        (&empty, vec!["-o", output], 3, "no rows"),
        (&damaged, vec!["-o", output], 3, "damaged.jsonl:2: not a row of results"),
        (&missing, vec!["-o", output], 3, "missing.jsonl cannot be read"),
        (&empty, vec!["-o", output, "--workload", "8x8"], 2, "--workload 8x8: no row"),
        (&empty, vec![], 2, "--output"),
    ] {
        let output = report(&[file], &arguments);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(wanted), "{wanted}: {output:?}");
    }
    assert!(!page.exists());
    let nowhere = report(&[&MEASURED], &["-o", folder.path().join("no folder/page.html").to_str().unwrap()]);
    assert_eq!(nowhere.status.code(), Some(7), "{nowhere:?}");
}
