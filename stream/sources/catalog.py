"""The public logs that are known by name. Facts only; `datasets` finds them and `download` fetches them."""

from dataclasses import dataclass, field
from typing import Any

from stream.sources.download import Download, jodie_row, pick

_SNAP_LICENCE = "no licence stated by the publisher; SNAP asks to be cited (Leskovec & Krevl 2014, SNAP Datasets)"
_NETWORK_REPOSITORY_LICENCE = (
    "no licence stated by the publisher; Network Repository asks to be cited (Rossi & Ahmed 2015, AAAI)"
)
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """One public log.

    Attributes:
        name: what commands call it; also its folder.
        title: what it holds, in a few words.
        publisher: who publishes it.
        page: where the publisher describes it.
        download: how its file is made from what the publisher serves.
        file: the file's name inside its folder.
        sha256: digest of the file.
        events, nodes: what ingesting the whole file gives.
        span: the time that it covers.
        step: the step size that suits it.
        read_options: keyword arguments for reading the file, as `stream.decoders.DecodeOptions` names them.
        citation: the paper to cite.
        licence: what the publisher says about use.
        note: what to know before using it; may be empty.
    """

    name: str
    title: str
    publisher: str
    page: str
    download: Download
    file: str
    sha256: str
    events: int
    nodes: int
    span: str
    citation: str
    licence: str
    step: str = "1h"
    read_options: dict[str, Any] = field(default_factory=lambda: {"format": "edgelist", "time_unit": "s"})
    note: str = ""


CATALOG: tuple[DatasetInfo, ...] = (
    DatasetInfo(
        name="sx-mathoverflow",
        title="answers and comments on Math Overflow",
        publisher="SNAP",
        page="https://snap.stanford.edu/data/sx-mathoverflow.html",
        download=Download(url="https://snap.stanford.edu/data/sx-mathoverflow.txt.gz"),
        file="sx-mathoverflow.txt.gz",
        sha256="cdc635fda76dab06ab02ca242563fa333bb83d096571342ef0326d85ff0c04da",
        events=506_550,
        nodes=24_818,
        span="2009-09-29 … 2016-03-06",
        citation="Paranjape, Benson & Leskovec 2017, Motifs in temporal networks, WSDM",
        licence=_SNAP_LICENCE,
    ),
    DatasetInfo(
        name="CollegeMsg",
        title="private messages at a university",
        publisher="SNAP",
        page="https://snap.stanford.edu/data/CollegeMsg.html",
        download=Download(url="https://snap.stanford.edu/data/CollegeMsg.txt.gz"),
        file="CollegeMsg.txt.gz",
        sha256="50ae2d98ed3bad9ddb18dbd495a89e5e10cfb8f7e86932827db29fc41b41f9fa",
        events=59_835,
        nodes=1_899,
        span="194 days of 2004",
        citation="Panzarasa, Opsahl & Carley 2009, Patterns and dynamics of users' behavior, JASIST 60(5)",
        licence=_SNAP_LICENCE,
    ),
    DatasetInfo(
        name="email-Eu-core-temporal",
        title="e-mail inside an institution",
        publisher="SNAP",
        page="https://snap.stanford.edu/data/email-Eu-core-temporal.html",
        download=Download(url="https://snap.stanford.edu/data/email-Eu-core-temporal.txt.gz"),
        file="email-Eu-core-temporal.txt.gz",
        sha256="f6cc93249978e59d1aba111b55ea10ec553917419a3be1210012b5db3580efa6",
        events=332_334,
        nodes=986,
        span="804 days, as seconds since an undisclosed start",
        citation="Paranjape, Benson & Leskovec 2017, Motifs in temporal networks, WSDM",
        licence=_SNAP_LICENCE,
        note="times are relative and so start in 1970; days 525 to 797 are empty",
    ),
    DatasetInfo(
        name="jodie-wikipedia",
        title="edits of Wikipedia pages, user to page",
        publisher="SNAP",
        page="https://snap.stanford.edu/jodie/",
        download=Download(
            url="https://snap.stanford.edu/jodie/wikipedia.csv",
            row=jodie_row(first_item=8227),
            header="u,i,ts,label",
            line_end="\r\n",
            as_served=False,
            max_bytes=700 * _MIB,
        ),
        file="wikipedia.csv",
        sha256="b68d35966dd1c013bce7432184778eb6edb0766ad65cd66bb5ca7ed9876c81ab",
        events=157_474,
        nodes=9_227,
        span="31 days, as seconds since an undisclosed start",
        citation="Kumar, Zhang & Leskovec 2019, Predicting dynamic embedding trajectory, KDD",
        licence=_SNAP_LICENCE,
        read_options={"format": "csv", "time_unit": "s", "bipartite": True},
        note="times are relative and so start in 1970; the publisher's file has 172 more columns (over 500 MB)",
    ),
    DatasetInfo(
        name="bitcoin-otc",
        title="trust ratings between Bitcoin traders",
        publisher="SNAP",
        page="https://snap.stanford.edu/data/soc-sign-bitcoin-otc.html",
        download=Download(
            url="https://snap.stanford.edu/data/soc-sign-bitcoinotc.csv.gz",
            row=pick(0, 1, 2, 3, separator=","),
            header="from,to,feature,time",
            line_end="\r\n",
            as_served=False,
        ),
        file="soc-sign-bitcoinotc.csv",
        sha256="af3f648f9d3e549b4e9451ef8a9d2394c45175548d4593dd6c0d72f4b965457f",
        events=35_592,
        nodes=5_881,
        span="2010-11 … 2016-01",
        citation="Kumar, Spezzano, Subrahmanian & Faloutsos 2016, Edge weight prediction, ICDM",
        licence=_SNAP_LICENCE,
        step="1d",
        read_options={"format": "csv", "time_unit": "s"},
    ),
    DatasetInfo(
        name="digg-reply",
        title="replies on Digg",
        publisher="KONECT",
        page="http://konect.cc/networks/munmun_digg_reply/",
        download=Download(
            url="http://konect.cc/files/download.tsv.munmun_digg_reply.tar.bz2",
            member="out.munmun_digg_reply",
            row=pick(0, 1, 2, 3),
            line_end="\r\n",
            as_served=False,
        ),
        file="out.munmun_digg_reply.txt",
        sha256="76574b73dddc972526e4f48a2bcb071e822bdb3a9686df7f33e44a7d0e5a4a53",
        events=87_627,
        nodes=30_398,
        span="15 days of 2008",
        citation="De Choudhury, Sundaram, John & Seligmann 2009, Social synchrony, CSE",
        licence="no licence stated by the publisher; KONECT asks to be cited (Kunegis 2013, WWW Companion)",
    ),
    DatasetInfo(
        name="reality-call",
        title="phone calls of the Reality Mining study",
        publisher="Network Repository",
        page="https://networkrepository.com/ia-reality-call.php",
        download=Download(
            url="https://nrvis.com/download/data/dynamic/ia-reality-call.zip",
            member="ia-reality-call.edges",
            row=pick(0, 1, 2),
            as_served=False,
        ),
        file="ia-reality-call.txt",
        sha256="13c9ba00fc7df9fbd4e42254cc3292b422b2030568e60229664459c35ad9d1f3",
        events=52_050,
        nodes=6_809,
        span="106 days of 2004",
        citation="Eagle & Pentland 2006, Reality mining, Personal and Ubiquitous Computing 10(4)",
        licence=_NETWORK_REPOSITORY_LICENCE,
    ),
    DatasetInfo(
        name="wiki-elec",
        title="votes on the adminship of Wikipedia editors",
        publisher="Network Repository",
        page="https://networkrepository.com/soc-wiki-elec.php",
        download=Download(
            url="https://nrvis.com/download/data/dynamic/soc-wiki-elec.zip",
            member="soc-wiki-elec.edges",
            row=pick(0, 1, 3),
            as_served=False,
        ),
        file="soc-wiki-elec-combined.txt",
        sha256="287fd52573adef06d033100cc08288a474b2c1845c8ddba6df8b13f9e43fe20d",
        events=107_071,
        nodes=7_118,
        span="2004-03 … 2008-01",
        citation="Leskovec, Huttenlocher & Kleinberg 2010, Governance in social media, ICWSM",
        licence=_NETWORK_REPOSITORY_LICENCE,
    ),
    DatasetInfo(
        name="retweet-pol",
        title="political retweets",
        publisher="Network Repository",
        page="https://networkrepository.com/ia-retweet-pol.php",
        download=Download(
            url="https://nrvis.com/download/data/dynamic/ia-retweet-pol.zip",
            member="ia-retweet-pol.edges",
            row=pick(0, 1, 2),
            ends_with_newline=False,
            as_served=False,
        ),
        file="ia-retweet-pol.txt",
        sha256="e6c0110982d61a44638d33baea29d23603df31e62efeba7d30b0d141342d47f7",
        events=61_157,
        nodes=18_470,
        span="49 days of 2010",
        citation="Conover et al. 2011, Political polarization on Twitter, ICWSM",
        licence=_NETWORK_REPOSITORY_LICENCE,
    ),
)
