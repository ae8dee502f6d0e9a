"""Component check: CPU pool, before anything is spent; never tried again, for it would find the same."""

from kfp import dsl


@dsl.component(base_image="pud", install_kfp_package=False)
def check(
    tracking: dict = {},  # noqa: B006
    attack: str = "",
    attack_settings: dict = {},  # noqa: B006  KFP wants plain defaults
    model_settings: dict = {},  # noqa: B006
    train_settings: dict = {},  # noqa: B006
    probe_settings: dict = {},  # noqa: B006
    detect_settings: dict = {},  # noqa: B006
    purify_settings: dict = {},  # noqa: B006
    evaluate_settings: dict = {},  # noqa: B006
    gate_settings: dict = {},  # noqa: B006
    formats: list = [],  # noqa: B006
) -> None:
    """Refuse what a step would refuse after hours: Kubeflow's own ``kfp run submit`` looks at no setting."""
    given = dict(locals())

    from components.guard import guarded
    from pud.steps.settings import check_settings

    with guarded():
        check_settings(given)
