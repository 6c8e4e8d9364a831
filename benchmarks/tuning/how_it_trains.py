"""Rows of the table of techniques: how it trains. Each changes one thing of the common recipe; MIXED are
several fits as one."""

from benchmarks.tuning.rows import Row

OPTIMIZERS = (
    Row(
        "sgd with momentum",
        (
            "training.optimizer=sgd",
            "training.learning_rate=1.0",
            "training.tuned_learning_rate=0.2",
            "training.encoder_learning_rate=1e-2",
        ),
        "Sutskever et al. 2013; rates of its own, since its steps are as long as the gradient",
    ),
    Row(
        "adafactor",
        ("training.optimizer=adafactor",),
        "Shazeer and Stern 2018: AdamW's rates, a fraction of its memory",
    ),
    Row("linear schedule", ("training.schedule=linear",), "the rate falls in a straight line"),
    Row("constant schedule", ("training.schedule=constant",), "the rate stays after warm-up"),
    Row("inverse square root", ("training.schedule=inverse_sqrt",), "Vaswani et al. 2017: it falls and never ends"),
    Row("no warm-up", ("training.warmup_share=0",), "the whole rate from the first step"),
    Row("no clipping", ("training.max_grad_norm=1e9",), "gradients as long as they are (with: Pascanu et al. 2013)"),
    Row("no early stopping", ("training.patience=100",), "every epoch; the best on validation is kept all the same"),
    Row("accumulate 4", ("training.accumulate=4",), "four batches a step"),
    Row("average of weights", ("training.ema=0.99",), "Polyak and Juditsky 1992: the moving average is what is kept"),
)

REGULARISERS = (
    Row("no weight decay", ("training.weight_decay=0",), "what the default's decay brings"),
    Row("weight decay 0.1", ("training.weight_decay=0.1",), "ten times the default"),
    Row("no dropout", ("user_model.dropout=0", "item.id_dropout=0"), "what the default's dropout brings"),
    Row("dropout of items", ("user_model.item_dropout=0.2",), "a fifth of each history vanishes"),
    Row("dropout of ids 0.5", ("item.id_dropout=0.5",), "half of the items learn from their words alone"),
    Row(
        "dropout of the language model",
        ("encoder.dropout=0.1",),
        "inside its layers while they are tuned (Srivastava et al. 2014)",
    ),
    Row("label smoothing", ("objective.label_smoothing=0.1",), "Szegedy et al. 2016"),
    Row("r-drop", ("regularisers.r_drop=1",), "Liang et al. 2021: two passes agree"),
    Row("l2-sp", ("regularisers.l2_sp=0.01",), "Li et al. 2018: a pull to the pretrained weights"),
    Row(
        "next category as well",
        ("objective.auxiliary.column=CATEGORY",),
        "a second head says of which kind the next item is, softmax over them (Caruana 1997); films: the genre",
    ),
)

ADVERSARIAL = (
    Row("fgm", ("adversarial.kind=fgm",), "Miyato et al. 2017: one step uphill"),
    Row("pgd", ("adversarial.kind=pgd",), "Madry et al. 2018: three steps, and only there"),
    Row("freelb", ("adversarial.kind=freelb",), "Zhu et al. 2020: three steps, and on the way"),
    Row("smart", ("adversarial.kind=smart",), "Jiang et al. 2020: answers stay where the words move"),
)

# Fits whose weights or answers are put together. SEED stands for a fit's seed, OTHER and THIRD for two that no row has.
_SOUP = (
    Row("soup, as it is", ("training.start_seed=SEED",), "the common recipe"),
    Row("soup, other batches", ("training.start_seed=SEED", "training.seed=OTHER"), "another order of the events"),
    Row("soup, lower rate", ("training.start_seed=SEED", "training.learning_rate=1.5e-3"), "half the rate"),
    Row("soup, label smoothing", ("training.start_seed=SEED", "objective.label_smoothing=0.1"), "Szegedy et al. 2016"),
)
_SEEDS = (
    Row("plain, for the ensemble", (), "the common recipe"),
    Row("plain, other seed", ("training.seed=OTHER",), "the common recipe"),
    Row("plain, third seed", ("training.seed=THIRD",), "the common recipe"),
)
_USER_MODELS = (
    _SEEDS[0],
    Row("attention, for the ensemble", ("user_model.kind=attention",), "attention over the history"),
    Row("mean, for the ensemble", ("user_model.kind=mean",), "a weighted mean of the history"),
)
MIXED = (
    Row(
        "snapshots",
        ("training.snapshots=2", "training.patience=10", "training.tuned_epochs=0"),
        "Huang et al. 2017: the ends of two cycles of the first stage, as one; beside 'head only'",
        mix="snapshots",
        beside="head only",
    ),
    Row(
        "ensemble of 3 seeds",
        (),
        "three plain fits, each at the stage that validation chose, by scores",
        mix="ensemble",
        members=_SEEDS,
    ),
    Row(
        "ensemble of 3 seeds, by ranks",
        (),
        "the same three fits, by the sum of reciprocal ranks (Cormack et al. 2009)",
        mix="ranks",
        members=_SEEDS,
        beside="ensemble of 3 seeds",
    ),
    Row(
        "ensemble of user models",
        (),
        "a causal transformer, attention and a mean as user models, by scores",
        mix="ensemble",
        members=_USER_MODELS,
    ),
    Row("uniform soup", (), "Wortsman et al. 2022: the mean of four fits' weights", mix="uniform", members=_SOUP),
    Row("greedy soup", (), "the same: a fit joins where validation does not fall", mix="greedy", members=_SOUP),
)

ROWS = (*OPTIMIZERS, *REGULARISERS, *ADVERSARIAL)
