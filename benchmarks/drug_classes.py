"""Count how many drugs have drugs of their own class as nearest neighbours.

python benchmarks/drug_classes.py EMBEDDINGS   (a file that cdd embed wrote)

The classes follow mechanism and chemistry, as in ATC. A drug counts if at least three of its five
nearest drugs, by cosine among all drugs, belong to its class. Names that the graph lacks are
printed and left out.
"""

from __future__ import annotations

import sys

import numpy as np

from clinical_drug_discovery.models.read_embeddings import read_embeddings

NEAREST, SAME = 5, 3
CLASSES = {
    "statins": "atorvastatin, simvastatin, rosuvastatin, pravastatin, fluvastatin, lovastatin, "
    "pitavastatin, cerivastatin",
    "beta blockers": "propranolol, metoprolol, atenolol, bisoprolol, carvedilol, nadolol, timolol, "
    "labetalol, pindolol, acebutolol, betaxolol, esmolol, nebivolol, sotalol, penbutolol",
    "SSRIs": "fluoxetine, sertraline, paroxetine, citalopram, escitalopram, fluvoxamine",
    "ACE inhibitors": "captopril, enalapril, lisinopril, ramipril, benazepril, quinapril, "
    "fosinopril, perindopril, trandolapril, moexipril, cilazapril",
    "angiotensin receptor blockers": "losartan, valsartan, irbesartan, telmisartan, olmesartan, "
    "eprosartan, candesartan cilexetil, azilsartan medoxomil",
    "fluoroquinolones": "ciprofloxacin, levofloxacin, moxifloxacin, ofloxacin, norfloxacin, "
    "gatifloxacin, gemifloxacin, sparfloxacin, lomefloxacin, trovafloxacin, enoxacin",
    "benzodiazepines": "diazepam, lorazepam, alprazolam, clonazepam, temazepam, oxazepam, "
    "triazolam, midazolam, chlordiazepoxide, clobazam, flurazepam, estazolam, quazepam",
    "proton pump inhibitors": "omeprazole, esomeprazole, lansoprazole, pantoprazole, rabeprazole, "
    "dexlansoprazole",
    "triptans": "sumatriptan, rizatriptan, zolmitriptan, naratriptan, almotriptan, eletriptan, "
    "frovatriptan",
    "sulfonylureas": "glipizide, glyburide, glimepiride, tolbutamide, chlorpropamide, tolazamide, "
    "gliclazide, gliquidone",
    "tricyclic antidepressants": "amitriptyline, imipramine, nortriptyline, desipramine, doxepin, "
    "clomipramine, trimipramine, protriptyline, amoxapine",
    "dihydropyridines": "amlodipine, nifedipine, felodipine, nicardipine, isradipine, nisoldipine, "
    "nimodipine, nitrendipine, clevidipine, lercanidipine",
    "bisphosphonates": "alendronic acid, risedronic acid, ibandronate, zoledronic acid, "
    "pamidronic acid, etidronic acid, tiludronic acid",
    "penicillins": "amoxicillin, ampicillin, dicloxacillin, oxacillin, nafcillin, piperacillin, "
    "ticarcillin, cloxacillin, phenoxymethylpenicillin",
    "cephalosporins": "cefazolin, cephalexin, cefuroxime, ceftriaxone, cefotaxime, ceftazidime, "
    "cefepime, cefaclor, cefixime, cefdinir, cefadroxil, cefoxitin, cefprozil",
    "azole antifungals": "fluconazole, itraconazole, ketoconazole, voriconazole, posaconazole, "
    "miconazole, clotrimazole, econazole",
}


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    nodes, values = read_embeddings(sys.argv[1])
    is_drug = (nodes["node_type"] == "drug").to_numpy()
    names = nodes["node_name"].filter(is_drug).str.to_lowercase().to_list()
    z = values[is_drug] / np.linalg.norm(values[is_drug], axis=1, keepdims=True)
    total = found = 0
    for name, listed in CLASSES.items():
        members = listed.split(", ")
        rows = [names.index(member) for member in members if member in names]
        missing = [member for member in members if member not in names]
        good = 0
        for row in rows:
            cosine = z @ z[row]
            cosine[row] = -np.inf
            good += len(set(np.argsort(-cosine)[:NEAREST]) & set(rows)) >= SAME
        note = f" (not in the graph: {', '.join(missing)})" if missing else ""
        print(f"{name:30} {good:3} of {len(rows):3}{note}")
        total, found = total + len(rows), found + good
    print(f"{'all':30} {found:3} of {total:3} = {found / total:.0%}")


if __name__ == "__main__":
    main()
