"""Scan scripts as SSRL beamline 6-2c writes them: references before and after the frames by turns, each energy with its optics."""

SAMPLE, REFERENCE = (-5178.10, 5217.10), (8322.05, 5217.20)


def scan_script(energies_ev, *, frames=3, references=10, exposure_s=0.5, reference_exposure_s=0.3):
    """Text of a script of that kind."""
    lines = [";; 2D XANES ;;", f"setexp {exposure_s:.2f}", "setbinning 2"]
    for i, energy in enumerate(energies_ev):
        lines += [";;;; set the MONO and the ZP", f"sete {energy:.2f}"]
        lines += [f"moveto zpz {-2046.33 + energy - energies_ev[0]:.2f}"]
        away = [f"moveto x {REFERENCE[0]:.2f}", f"moveto y {REFERENCE[1]:.2f}", f"setexp {reference_exposure_s:.2f}"]
        away += [
            f"collect rep01_{i * references + n + 1:06}_ref_cell_{energy:07.1f}_eV_{n + 1:03}of{references:03}.xrm"
            for n in range(references)
        ]
        away += [f"setexp {exposure_s:.2f}", "setbinning 2"]
        back = ["moveto t 6.97", "moveto z 3552.55", f"moveto x {SAMPLE[0]:.2f}", f"moveto y {SAMPLE[1]:.2f}"]
        shots = [f"collect rep01_cell_{energy:07.1f}_eV_{n + 1:03}of{frames:03}.xrm" for n in range(frames)]
        lines += [*away, *back, *shots] if i % 2 == 0 else [*shots, *away]
    return "\n".join(lines) + "\n"


def scan_info(script):
    """Text of the ScanInfo file of a script."""
    files = [line.split()[1] for line in script.splitlines() if line.startswith("collect")]
    return "\n".join(["VERSION 1", "ENERGY 1", "NEXPOSURES   3", "REFNEXPOSURES  10", "FILES", *files]) + "\n"
