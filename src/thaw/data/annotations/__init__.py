"""Labels of whole images in the exports of annotation tools: Label Studio, CVAT and COCO."""
