"""What to cite: the paper of each pooling, in BibTeX. One place to add one."""

_3G = """@inproceedings{wang2019deep,
  title={Deep Global Generalized Gaussian Networks},
  author={Wang, Qilong and Li, Peihua and Hu, Qinghua and Zhu, Pengfei and Zuo, Wangmeng},
  booktitle={IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages={5080--5088},
  year={2019}
}"""
_ISQRT = """@inproceedings{li2018towards,
  title={Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix Square Root Normalization},
  author={Li, Peihua and Xie, Jiangtao and Wang, Qilong and Gao, Zilin},
  booktitle={IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year={2018}
}"""
_MPN = """@inproceedings{li2017second,
  title={Is Second-order Information Helpful for Large-scale Visual Recognition?},
  author={Li, Peihua and Xie, Jiangtao and Wang, Qilong and Zuo, Wangmeng},
  booktitle={IEEE International Conference on Computer Vision (ICCV)},
  year={2017}
}"""
_G2DE = """@inproceedings{wang2017g2denet,
  title={{G2DeNet}: Global {G}aussian Distribution Embedding Network and Its Application to Visual Recognition},
  author={Wang, Qilong and Li, Peihua and Zhang, Lei},
  booktitle={IEEE Conference on Computer Vision and Pattern Recognition (CVPR)},
  year={2017}
}"""
_BCNN = """@inproceedings{lin2015bilinear,
  title={Bilinear {CNN} Models for Fine-grained Visual Recognition},
  author={Lin, Tsung-Yu and RoyChowdhury, Aruni and Maji, Subhransu},
  booktitle={IEEE International Conference on Computer Vision (ICCV)},
  year={2015}
}"""
_CBP = """@inproceedings{gao2016compact,
  title={Compact Bilinear Pooling},
  author={Gao, Yang and Beijbom, Oscar and Zhang, Ning and Darrell, Trevor},
  booktitle={IEEE Conference on Computer Vision and Pattern Recognition (CVPR)},
  year={2016}
}"""
_DROPCOV = """@inproceedings{wang2022dropcov,
  title={{DropCov}: A Simple yet Effective Method for Improving Deep Architectures},
  author={Wang, Qilong and Gao, Mingze and Zhang, Zhaolin and Xie, Jiangtao and Li, Peihua and Hu, Qinghua},
  booktitle={Advances in Neural Information Processing Systems (NeurIPS)},
  year={2022}
}"""

# By global_pool; poolings that are not here (average, plain covariance) have no paper of their own.
PAPERS = {
    '3g': _3G,
    '3g_nosqrt': _3G,
    'urm_v1': _3G,
    'urm_v2': _3G,
    'isqrt': _ISQRT,
    'mpn': _MPN,
    'g2de': _G2DE,
    'bcnn': _BCNN,
    'cbp': _CBP,
    'dropcov': _DROPCOV,
}
