"""Sweep one setting: what `kore-null` learns and keeps as its subspace grows. Writes rank_sweep.csv and rank_sweep.png."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas

import kore_bench

ranks = (8, 16, 32, 64)
runs = {
    rank: kore_bench.run("kore-null", settings={"kore-null.rank": rank}, name=f"kore-null-{rank}") for rank in ranks
}

scores = pandas.concat({rank: run.scores() for rank, run in runs.items()}, names=["rank"]).reset_index("rank")
headline = scores.query("method == 'kore-null' and measure in ['K.A', 'K.R', 'old-facts']")
headline.to_csv("rank_sweep.csv", index=False)
print(headline.pivot_table(index="rank", columns="measure", values="value").round(1))

figure, axes = plt.subplots()
for measure, rows in headline.groupby("measure"):
    below, above = rows["value"] - rows["low"], rows["high"] - rows["value"]
    axes.errorbar(rows["rank"], rows["value"], yerr=[below, above], marker="o", capsize=3, label=measure)
axes.set(xscale="log", xlabel="rank of the null space", ylabel="score (%)", ylim=(0, 102))
axes.set_xticks(ranks, [str(rank) for rank in ranks])
axes.minorticks_off()
axes.legend()
figure.savefig("rank_sweep.png", dpi=144)
