"""Component check: CPU pool, before anything is spent; never tried again, for it would find the same."""

from kfp import dsl


@dsl.component(base_image="pud", install_kfp_package=False)
def check(
    attack: str,
    attack_settings: dict,
    train_settings: dict,
    probe_settings: dict,
    detect_settings: dict,
    purify_settings: dict,
    evaluate_settings: dict,
    tracking: dict,
) -> None:
    """Refuse what a step would refuse after hours: Kubeflow's own ``kfp run submit`` looks at no setting."""
    given = dict(locals())

    from components.guard import guarded
    from pud.steps.settings import check_settings

    with guarded():
        check_settings(given)
