//! `nvembed prepare`: does the work of opening a model ahead of time.

use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use nvembed::gpu::TargetGpu;

use crate::arguments::{ModelArguments, parse};
use crate::io::{interrupt, print};

/// Optimize a model for this machine so that it opens faster and processes share its weights.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints the folder that it made. The model opens from it as long as the model, the ONNX Runtime build and the \
                  processor are the same. It takes about twice the size of the model's weights; deleting it is safe. With \
                  a TensorRT provider it builds engines for the GPUs, shapes and options given here, and the model must \
                  be opened with the same ones."
)]
pub(crate) struct Arguments {
    /// No progress on stderr.
    #[arg(short, long)]
    quiet: bool,
    /// The GPU to compile for (nv-tensorrt-rtx), which this machine need not have: sm86, sm89, sm120 or sm121. Default: that
    /// of --device-ids.
    #[arg(long, value_name = "SM", value_parser = parse::<TargetGpu>)]
    target_gpu: Option<TargetGpu>,
    #[command(flatten)]
    model: ModelArguments,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    interrupt::watch()?;
    let (folder, mut options) = arguments.model.resolve();
    options.gpu.target_gpu = arguments.target_gpu;
    let bar = if arguments.quiet || !stderr().is_terminal() { ProgressBar::hidden() } else { spinner() };
    let prepared = nvembed::prepare(&folder, &options, |partial| {
        *interrupt::unfinished() = Some(partial.to_owned());
        show(&bar, partial);
    });
    *interrupt::unfinished() = None;
    bar.finish_and_clear();
    Ok(print(&format!("{}\n", prepared?.display()))?)
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::no_length();
    match ProgressStyle::with_template("{spinner} {binary_bytes} written, {elapsed}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Shows how many bytes were written: ONNX Runtime does not report progress.
fn show(bar: &ProgressBar, folder: &Path) {
    if bar.is_hidden() {
        return;
    }
    let (bar, folder) = (bar.clone(), folder.to_owned());
    // Without the thread there is no progress to see, which is no failure.
    let _ = std::thread::Builder::new().name("progress".to_owned()).spawn(move || {
        while !bar.is_finished() {
            let files = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            bar.set_position(files.flat_map(|file| file.metadata()).map(|file| file.len()).sum());
            std::thread::sleep(Duration::from_millis(200));
        }
    });
}
